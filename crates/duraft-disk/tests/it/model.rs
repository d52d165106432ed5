//! The fault disk against a slow and obvious model: every byte that was ever written, kept by
//! sector.

use duraft_disk::{Disk, FaultDisk, FaultOptions, SplitMix64, Survival};
use proptest::prelude::*;
use std::collections::BTreeMap;

const FILES: usize = 3;
const LEN_MAX: usize = 6000;

#[derive(Clone, Debug)]
enum Step {
    Write {
        file: usize,
        offset: usize,
        len: usize,
        byte: u8,
    },
    FillZero {
        file: usize,
        len: usize,
    },
    Sync {
        file: usize,
    },
    Remove {
        file: usize,
    },
    Rename {
        from: usize,
        to: usize,
    },
    SyncDir,
    ProcessCrash,
    PowerLoss {
        seed: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..FILES;
    prop_oneof![
        8 => (file.clone(), 0..LEN_MAX - 2000, 1..2000_usize, 1..=255_u8)
            .prop_map(|(file, offset, len, byte)| Step::Write { file, offset, len, byte }),
        2 => (file.clone(), 0..LEN_MAX).prop_map(|(file, len)| Step::FillZero { file, len }),
        4 => file.clone().prop_map(|file| Step::Sync { file }),
        1 => file.clone().prop_map(|file| Step::Remove { file }),
        1 => (file.clone(), file).prop_map(|(from, to)| Step::Rename { from, to }),
        2 => Just(Step::SyncDir),
        1 => Just(Step::ProcessCrash),
        2 => any::<u64>().prop_map(|seed| Step::PowerLoss { seed }),
    ]
}

/// A file of the model. `versions` holds for each sector all contents that a power loss may leave
/// there, cut or filled with zeros to a whole sector; the first is the durable one.
#[derive(Clone, Debug)]
struct File {
    live: Vec<u8>,
    lens: Vec<usize>,
    versions: Vec<Vec<Vec<u8>>>,
}

struct Model {
    sector: usize,
    live: BTreeMap<usize, usize>,
    /// For each name all files it may stand for after a power loss, `None` for none.
    names: Vec<Vec<Option<usize>>>,
    files: Vec<File>,
}

impl Model {
    fn new(sector: usize) -> Model {
        Model {
            sector,
            live: BTreeMap::new(),
            names: vec![vec![None]; FILES],
            files: Vec::new(),
        }
    }

    fn sectors(&self) -> usize {
        LEN_MAX.div_ceil(self.sector)
    }

    fn content(&self, bytes: &[u8], number: usize) -> Vec<u8> {
        let mut padded = bytes.to_vec();
        padded.resize(self.sectors() * self.sector, 0);
        padded[number * self.sector..(number + 1) * self.sector].to_vec()
    }

    fn create(&mut self, name: usize) {
        let zero = vec![vec![0; self.sector]];
        self.files.push(File {
            live: Vec::new(),
            lens: vec![0],
            versions: vec![zero; self.sectors()],
        });
        let id = self.files.len() - 1;
        self.live.insert(name, id);
        self.names[name].push(Some(id));
    }

    fn replace(&mut self, id: usize, bytes: Vec<u8>) {
        for number in 0..self.sectors() {
            let content = self.content(&bytes, number);
            self.files[id].versions[number].push(content);
        }
        self.files[id].lens.push(bytes.len());
        self.files[id].live = bytes;
    }

    fn settle(&mut self, id: usize, bytes: Vec<u8>) {
        let contents = (0..self.sectors()).map(|number| vec![self.content(&bytes, number)]);
        self.files[id] = File {
            lens: vec![bytes.len()],
            versions: contents.collect(),
            live: bytes,
        };
    }

    /// Takes over what a power loss left, after checking that it may be so.
    fn power_loss(&mut self, found: &BTreeMap<usize, Vec<u8>>) {
        let mut live = BTreeMap::new();
        for name in 0..FILES {
            let bytes = found.get(&name);
            let candidates = std::mem::take(&mut self.names[name]);
            let chosen = candidates
                .into_iter()
                .find(|candidate| match (candidate, bytes) {
                    (None, None) => true,
                    (Some(id), Some(bytes)) => self.possible(*id, bytes),
                    (None, Some(_)) | (Some(_), None) => false,
                });
            let chosen = chosen.expect("the disk left a name or content that it could not");
            self.names[name] = vec![chosen];
            if let Some(id) = chosen {
                live.insert(name, id);
            }
        }
        for (name, id) in &mut live {
            // Two names may now show one file; from here on its content is what was found.
            let file = self.files[*id].clone();
            self.files.push(file);
            *id = self.files.len() - 1;
            self.names[*name] = vec![Some(*id)];
            self.settle(*id, found[name].clone());
        }
        self.live = live;
    }

    fn possible(&self, id: usize, bytes: &[u8]) -> bool {
        let file = &self.files[id];
        file.lens.contains(&bytes.len())
            && (0..bytes.len().div_ceil(self.sector)).all(|number| {
                let start = number * self.sector;
                let end = bytes.len().min(start + self.sector);
                file.versions[number]
                    .iter()
                    .any(|version| version[..end - start] == bytes[start..end])
            })
    }
}

const NAMES: [&str; FILES] = ["a", "b", "c"];

fn contents(disk: &FaultDisk) -> BTreeMap<usize, Vec<u8>> {
    NAMES
        .iter()
        .enumerate()
        .filter_map(|(name, text)| {
            let file = disk.open(text).ok()?;
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
            Some((name, bytes))
        })
        .collect()
}

/// One file under two names after a half lost renaming: the model would need links.
fn linked(disk: &FaultDisk) -> bool {
    let file = |name: &str| disk.open(name).ok();
    let mut probe = SplitMix64::new(1);
    NAMES.iter().enumerate().any(|(place, name)| {
        let mark = probe.next().to_le_bytes();
        let copy = disk.fork();
        let Ok(one) = copy.open(name) else {
            return false;
        };
        let before: Vec<_> = NAMES[place + 1..]
            .iter()
            .map(|n| file(n).map(|f| f.len().unwrap()))
            .collect();
        one.write_at(&mark, 10_000).unwrap();
        let after: Vec<_> = NAMES[place + 1..]
            .iter()
            .map(|n| copy.open(n).ok().map(|f| f.len().unwrap()))
            .collect();
        before != after
    })
}

fn run(steps: &[Step], sector: usize) {
    let options = FaultOptions {
        sector_bytes: sector,
        ..FaultOptions::default()
    };
    let mut disk = FaultDisk::new(options);
    let mut model = Model::new(sector);
    for step in steps {
        match *step {
            Step::Write {
                file,
                offset,
                len,
                byte,
            } => {
                let handle = match model.live.get(&file) {
                    Some(_) => disk.open(NAMES[file]).unwrap(),
                    None => {
                        model.create(file);
                        disk.create(NAMES[file]).unwrap()
                    }
                };
                handle.write_at(&vec![byte; len], offset as u64).unwrap();
                let id = model.live[&file];
                let mut bytes = model.files[id].live.clone();
                bytes.resize(bytes.len().max(offset + len), 0);
                bytes[offset..offset + len].fill(byte);
                model.replace(id, bytes);
            }
            Step::FillZero { file, len } => {
                if let Some(id) = model.live.get(&file).copied() {
                    disk.open(NAMES[file])
                        .unwrap()
                        .fill_zero(len as u64)
                        .unwrap();
                    model.replace(id, vec![0; len]);
                }
            }
            Step::Sync { file } => {
                if let Some(id) = model.live.get(&file).copied() {
                    disk.open(NAMES[file]).unwrap().sync_data().unwrap();
                    let bytes = model.files[id].live.clone();
                    model.settle(id, bytes);
                }
            }
            Step::Remove { file } => {
                let there = model.live.remove(&file).is_some();
                assert_eq!(disk.remove(NAMES[file]).is_ok(), there);
                if there {
                    model.names[file].push(None);
                }
            }
            Step::Rename { from, to } => {
                let id = model.live.get(&from).copied();
                assert_eq!(disk.rename(NAMES[from], NAMES[to]).is_ok(), id.is_some());
                if let Some(id) = id.filter(|_| from != to) {
                    model.live.remove(&from);
                    model.live.insert(to, id);
                    model.names[from].push(None);
                    model.names[to].push(Some(id));
                }
            }
            Step::SyncDir => {
                disk.sync_dir("").unwrap();
                for name in 0..FILES {
                    model.names[name] = vec![model.live.get(&name).copied()];
                }
            }
            Step::ProcessCrash => disk = disk.process_crash(),
            Step::PowerLoss { seed } => {
                disk = disk.power_loss(Survival::Drawn(seed));
                if linked(&disk) {
                    return;
                }
                model.power_loss(&contents(&disk));
            }
        }
        let expected: BTreeMap<usize, Vec<u8>> = model
            .live
            .iter()
            .map(|(name, id)| (*name, model.files[*id].live.clone()))
            .collect();
        assert_eq!(contents(&disk), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn disk_does_what_the_model_does(
        steps in prop::collection::vec(step(), 1..40),
        sector in prop::sample::select(vec![512, 1024, 4096]),
    ) {
        run(&steps, sector);
    }
}
