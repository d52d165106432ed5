//! Where the cluster's nodes can be reached: as the configuration says, and for others as the log
//! says, which `duraft cluster add` writes to before it adds a node.
//!
//! What the log says is kept in a file beside the store, because a node has to reach its peers before
//! it has read its log. The file is a copy: one that is missing or cannot be read costs a node that
//! starts no more than the time until it hears from a leader. What the configuration says wins.

use super::config::{Config, Peer};
use super::machine::Members;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const FILE: &str = "peers.json";

/// Hears of every node whose address is new or another one, and where it is.
type Tell = Box<dyn Fn(u64, &str) + Send>;

/// See the module documentation.
pub(crate) struct Book {
    file: PathBuf,
    state: Mutex<State>,
}

struct State {
    configured: BTreeMap<u64, Peer>,
    learned: BTreeMap<u64, Peer>,
    tell: Option<Tell>,
}

impl Book {
    /// A book of what the configuration and the file say.
    pub(crate) fn open(config: &Config) -> Book {
        let file = Path::new(&config.dir).join(FILE);
        let nodes = config.nodes.iter();
        Book {
            state: Mutex::new(State {
                configured: nodes.map(|peer| (peer.id, peer.clone())).collect(),
                learned: load(&file),
                tell: None,
            }),
            file,
        }
    }

    /// From now on `tell` hears of changes.
    pub(crate) fn on_change(&self, tell: Tell) {
        self.state.lock().tell = Some(tell);
    }

    pub(crate) fn all(&self) -> BTreeMap<u64, Peer> {
        let state = self.state.lock();
        let mut all = state.learned.clone();
        all.extend(
            state
                .configured
                .iter()
                .map(|(id, peer)| (*id, peer.clone())),
        );
        all
    }

    pub(crate) fn find(&self, id: u64) -> Option<Peer> {
        let state = self.state.lock();
        let found = state.configured.get(&id).or_else(|| state.learned.get(&id));
        found.cloned()
    }

    /// What the log says now. Called on the thread that applies it, with few nodes and seldom.
    pub(crate) fn learn(&self, members: &Members) {
        let mut state = self.state.lock();
        let mut changed = Vec::new();
        for (id, text) in members {
            // Our own nodes wrote it; a text of a later version is of no use here.
            let Ok(peer) = serde_json::from_slice::<Peer>(text) else {
                tracing::warn!(node = id, "the address in the log cannot be read");
                continue;
            };
            if state.learned.get(id) != Some(&peer) {
                if !state.configured.contains_key(id) {
                    changed.push((*id, peer.peer.clone()));
                }
                state.learned.insert(*id, peer);
            }
        }
        if let Err(error) = store(&self.file, &state.learned) {
            let file = self.file.display();
            tracing::warn!("the addresses of nodes cannot be kept in {file}: {error}");
        }
        if let Some(tell) = &state.tell {
            changed.iter().for_each(|(id, address)| tell(*id, address));
        }
    }
}

fn load(file: &Path) -> BTreeMap<u64, Peer> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
        Err(error) => {
            tracing::warn!("{} cannot be read: {error}", file.display());
            return BTreeMap::new();
        }
    };
    let peers: Vec<Peer> = serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!("{} cannot be read: {error}", file.display());
        Vec::new()
    });
    peers.into_iter().map(|peer| (peer.id, peer)).collect()
}

/// Whole or not at all, whatever happens on the way.
fn store(file: &Path, peers: &BTreeMap<u64, Peer>) -> io::Result<()> {
    let fresh = file.with_extension("json.new");
    let peers: Vec<&Peer> = peers.values().collect();
    let mut out = File::create(&fresh)?;
    out.write_all(&serde_json::to_vec_pretty(&peers)?)?;
    out.sync_all()?;
    fs::rename(&fresh, file)?;
    if let Some(folder) = file.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::Arc;

    fn peer(id: u64, at: &str) -> Peer {
        Peer {
            id,
            peer: at.into(),
            ..Peer::default()
        }
    }

    #[test]
    fn what_the_log_says_outlives_the_process_and_the_configuration_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Config {
            dir: folder.path().display().to_string(),
            nodes: vec![peer(1, "a:1")],
            ..Config::default()
        };
        let book = Book::open(&config);
        let heard: Arc<Mutex<Vec<(u64, String)>>> = Arc::default();
        let hears = Arc::clone(&heard);
        book.on_change(Box::new(move |id, at| hears.lock().push((id, at.into()))));
        let text = |peer: &Peer| Bytes::from(serde_json::to_vec(peer).expect("plain text"));
        let mut members = Members::new();
        members.insert(1, text(&peer(1, "other:1")));
        members.insert(4, text(&peer(4, "d:4")));
        members.insert(5, Bytes::from_static(b"from the future"));
        book.learn(&members);
        book.learn(&members);
        assert_eq!(
            *heard.lock(),
            [(4, "d:4".to_string())],
            "once, and not of node 1"
        );
        let again = Book::open(&config);
        let all: Vec<String> = again.all().into_values().map(|p| p.peer).collect();
        assert_eq!(all, ["a:1", "d:4"]);
        std::fs::write(folder.path().join(FILE), b"[{").expect("a file");
        assert_eq!(Book::open(&config).all().len(), 1, "a bad copy is no end");
    }
}
