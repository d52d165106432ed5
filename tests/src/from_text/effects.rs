//! What each record says and does: "Record types", "Payloads" and "What a record does" of
//! `docs/wal-format.md`.

use super::layout::number;
use super::places::Tables;
use super::records::{Batch, Group, Place, Snapshot};
use super::wal::Store;

/// A record that passed its checksums.
pub(super) struct Record<'a> {
    pub(super) tables: &'a Tables,
    pub(super) descriptor: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl Record<'_> {
    fn get(&self, name: &str) -> u64 {
        self.tables.descriptor.get(self.descriptor, name)
    }

    fn place(&self) -> Place {
        Place {
            index: self.get("index"),
            term: self.get("term"),
            digest: self.get("digest"),
        }
    }

    /// Writes the record down as a line, and lets it take effect.
    pub(super) fn take_in(&self, found: &mut Store) -> Result<(), String> {
        let group = self.get("group");
        let (line, effect) = self.read(group)?;
        found.lines.push(line);
        match effect {
            Effect::Nothing => {}
            Effect::Begin(new) => match found.groups.get_mut(&group) {
                None => {
                    found.groups.insert(group, *new);
                }
                Some(state) => {
                    state.settle(new.start, new.end);
                    *state = Group {
                        batches: std::mem::take(&mut state.batches),
                        ..*new
                    };
                }
            },
            Effect::Change(change) => {
                if let Some(state) = found.groups.get_mut(&group) {
                    change(state)?;
                }
            }
        }
        Ok(())
    }

    fn read(&self, group: u64) -> Result<(String, Effect), String> {
        let place = self.place();
        let at = format!("{} {} {:016x}", place.index, place.term, place.digest);
        Ok(match self.get("type") {
            1 => self.batch(group),
            number @ (2 | 9) => {
                let vote = (self.get("flags") & 1 != 0).then_some(place.index);
                let name = if number == 2 { "HARD_STATE" } else { "ECHO" };
                let line = format!("{name} group {group} term {} vote {vote:?}", place.term);
                let change = move |state: &mut Group| {
                    (state.term, state.vote) = (place.term, vote);
                    Ok(())
                };
                (line, Effect::change(change))
            }
            3 => {
                let change = move |state: &mut Group| {
                    state.truncate(place);
                    Ok(())
                };
                (
                    format!("TRUNCATE group {group} at {at}"),
                    Effect::change(change),
                )
            }
            4 => {
                let membership = self.payload.to_vec();
                let line = format!("COMPACT group {group} at {at} membership {membership:02x?}");
                let change = move |state: &mut Group| {
                    state.compact(place, membership);
                    Ok(())
                };
                (line, Effect::change(change))
            }
            5 => self.snapshot(group, place)?,
            6 => self.checkpoint(group)?,
            8 => (
                format!("CHECKPOINT_END {}", self.get("count")),
                Effect::Nothing,
            ),
            10 => self.repair(group),
            11 => {
                let change = |state: &mut Group| {
                    state.damaged = true;
                    Ok(())
                };
                (format!("DAMAGE group {group}"), Effect::change(change))
            }
            12 => (self.table(), Effect::Nothing),
            other => return Err(format!("record type {other}")),
        })
    }

    fn batch(&self, group: u64) -> (String, Effect) {
        // Each of these is as wide as its field in the table.
        let narrow = "a field of the table's width";
        let batch = Batch {
            group,
            kind: u8::try_from(self.get("kind")).expect(narrow),
            codec: u16::try_from(self.get("codec")).expect(narrow),
            count: u32::try_from(self.get("count")).expect(narrow),
            first: self.get("index"),
            term: self.get("term"),
            digest: self.get("digest"),
            body_sum: u32::try_from(self.get("body sum")).expect(narrow),
            body: self.payload.to_vec(),
        };
        let line = format!(
            "BATCH group {group} kind {} codec {} first {} count {} term {} digest {:016x} body {}",
            batch.kind,
            batch.codec,
            batch.first,
            batch.count,
            batch.term,
            batch.digest,
            batch.body.len()
        );
        (
            line,
            Effect::change(move |state: &mut Group| state.append(batch)),
        )
    }

    fn snapshot(&self, group: u64, place: Place) -> Result<(String, Effect), String> {
        let snapshot = snapshot_of(place, self.payload)?;
        let reset = self.get("flags") & 1 != 0;
        let line = format!(
            "SNAPSHOT group {group} {} reset {reset}",
            show_snapshot(Some(&snapshot))
        );
        let change = move |state: &mut Group| {
            if reset {
                state.batches.clear();
                (state.start, state.end) = (place, place);
                state.membership.clone_from(&snapshot.membership);
            }
            state.snapshot = Some(snapshot);
            Ok(())
        };
        Ok((line, Effect::change(change)))
    }

    fn checkpoint(&self, group: u64) -> Result<(String, Effect), String> {
        let layout = &self.tables.checkpoint;
        let bytes = self.payload;
        let short = || "a checkpoint that is too short".to_owned();
        let membership = usize::try_from(layout.get(bytes, "membership")).map_err(|_| short())?;
        let (fixed, rest) = bytes.split_at_checked(80).ok_or_else(short)?;
        let (membership, rest) = rest.split_at_checked(membership).ok_or_else(short)?;
        let flags = layout.get(fixed, "flags");
        let snapshot = if flags & 2 != 0 {
            let (place, rest) = rest.split_at_checked(24).ok_or_else(short)?;
            Some(snapshot_of(place_of(place), rest)?)
        } else {
            None
        };
        let state = Group {
            term: layout.get(fixed, "term"),
            vote: (flags & 1 != 0).then(|| layout.get(fixed, "vote")),
            start: place_of(layout.raw(fixed, "start")),
            end: place_of(layout.raw(fixed, "end")),
            membership: membership.to_vec(),
            batches: Vec::new(),
            snapshot,
            damaged: false,
        };
        let (start, end) = (state.start, state.end);
        let line = format!(
            "GROUP_STATE group {group} term {} vote {:?} from {} {} {:016x} to {} {} {:016x} \
             membership {:02x?} {}",
            state.term,
            state.vote,
            start.index,
            start.term,
            start.digest,
            end.index,
            end.term,
            end.digest,
            state.membership,
            show_snapshot(state.snapshot.as_ref())
        );
        Ok((line, Effect::Begin(Box::new(state))))
    }

    fn repair(&self, group: u64) -> (String, Effect) {
        match self.get("kind") {
            1 => {
                let change = |state: &mut Group| {
                    state.damaged = false;
                    Ok(())
                };
                (format!("HEALED group {group}"), Effect::change(change))
            }
            2 => (format!("VOTE CERTAIN group {group}"), Effect::Nothing),
            kind => (
                format!(
                    "REPAIR group {group} kind {kind} {} to {} in {} at {}",
                    self.get("index"),
                    self.get("digest"),
                    self.get("count"),
                    self.get("term")
                ),
                Effect::Nothing,
            ),
        }
    }

    fn table(&self) -> String {
        let mut line = format!(
            "TABLE since {} partial {}",
            self.get("index"),
            self.get("flags") & 1 != 0
        );
        for fact in self.payload.chunks(56) {
            let word = |at: usize| number(fact, &(at..at + 8));
            let end = place_of(&fact[8..32]);
            let vote = (word(48) & 1 != 0).then(|| word(40));
            line += &format!(
                ", group {} {} {} {:016x} term {} vote {vote:?}",
                word(0),
                end.index,
                end.term,
                end.digest,
                word(32)
            );
        }
        line
    }
}

/// A change of one group.
type Change = Box<dyn FnOnce(&mut Group) -> Result<(), String>>;

/// What a record does.
enum Effect {
    Nothing,
    Begin(Box<Group>),
    Change(Change),
}

impl Effect {
    fn change(change: impl FnOnce(&mut Group) -> Result<(), String> + 'static) -> Effect {
        Effect::Change(Box::new(change))
    }
}

/// A position: index, term and digest, eight bytes each.
fn place_of(bytes: &[u8]) -> Place {
    Place {
        index: number(bytes, &(0..8)),
        term: number(bytes, &(8..16)),
        digest: number(bytes, &(16..24)),
    }
}

/// Nonce, length and digest of the file, then the membership.
fn snapshot_of(place: Place, bytes: &[u8]) -> Result<Snapshot, String> {
    let (file, membership) = bytes.split_at_checked(24).ok_or("a short snapshot")?;
    Ok(Snapshot {
        place,
        nonce: number(file, &(0..8)),
        length: number(file, &(8..16)),
        digest: number(file, &(16..24)),
        membership: membership.to_vec(),
    })
}

fn show_snapshot(snapshot: Option<&Snapshot>) -> String {
    snapshot.map_or_else(
        || "without snapshot".into(),
        |s| {
            format!(
                "snapshot {} {} {:016x} file {:016x} {} {:016x} membership {:02x?}",
                s.place.index,
                s.place.term,
                s.place.digest,
                s.nonce,
                s.length,
                s.digest,
                s.membership
            )
        },
    )
}
