//! The sessions that stand before a state machine's own bytes. Their layout stands in the module
//! `sessions` of the crate `duraft`.

use super::Problem;
use duraft_storage::SnapshotError;
use std::io::Read;

/// Most sessions, and most answers of one: a table that says more is none.
const SESSIONS_MAX: u32 = duraft::SESSIONS_MAX;
const ANSWERS_MAX: u32 = duraft::ANSWERS_MAX;

/// A table without sessions.
pub(super) const NO_SESSIONS: [u8; 12] = *b"DSES\x01\x00\x00\x00\x00\x00\x00\x00";

/// Reads past the table; how many sessions it holds.
pub(crate) fn skip_sessions(source: &mut impl Read) -> Result<u32, Problem> {
    let mut head = [0; 12];
    read(source, &mut head)?;
    if head[..8] != NO_SESSIONS[..8] {
        return Err(Problem::Sessions(String::from("other first bytes")));
    }
    let sessions = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    bounded("sessions", sessions, SESSIONS_MAX)?;
    for _ in 0..sessions {
        let mut session = [0; 40];
        read(source, &mut session)?;
        let answers = u32::from_le_bytes([session[36], session[37], session[38], session[39]]);
        bounded("answers", answers, ANSWERS_MAX)?;
        for _ in 0..answers {
            skip_answer(source)?;
        }
    }
    Ok(sessions)
}

fn skip_answer(source: &mut impl Read) -> Result<(), Problem> {
    let mut head = [0; 9];
    read(source, &mut head)?;
    if head[8] == 0 {
        return Ok(());
    }
    let mut place = [0; 20];
    read(source, &mut place)?;
    let len = u32::from_le_bytes([place[16], place[17], place[18], place[19]]);
    let answer = std::io::copy(&mut source.take(len.into()), &mut std::io::sink());
    match answer {
        Ok(read) if read == u64::from(len) => Ok(()),
        Ok(_) => Err(Problem::Sessions(String::from("it ends within an answer"))),
        Err(error) => Err(reading(&error)),
    }
}

/// A damaged file is told from content that holds no sessions.
fn reading(error: &std::io::Error) -> Problem {
    let source = error.get_ref();
    let cause = source.and_then(|source| source.downcast_ref::<SnapshotError>());
    cause
        .cloned()
        .map_or_else(|| Problem::Sessions(error.to_string()), Problem::Snapshot)
}

fn bounded(what: &str, found: u32, most: u32) -> Result<(), Problem> {
    if found <= most {
        return Ok(());
    }
    Err(Problem::Sessions(format!("{found} {what}")))
}

fn read(source: &mut impl Read, bytes: &mut [u8]) -> Result<(), Problem> {
    let read = source.read_exact(bytes);
    read.map_err(|error| reading(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_sessions_is_read_past_and_bytes_that_are_none_are_refused() {
        let mut bytes = NO_SESSIONS.to_vec();
        bytes.extend(b"state");
        let mut source = bytes.as_slice();
        assert_eq!(skip_sessions(&mut source).expect("an empty table"), 0);
        assert_eq!(source, b"state");

        let mut bytes = NO_SESSIONS.to_vec();
        bytes[8] = 1;
        bytes.extend([7; 36]);
        bytes.extend(2u32.to_le_bytes());
        bytes.extend([1; 8]);
        bytes.push(0);
        bytes.extend([2; 8]);
        bytes.push(1);
        bytes.extend([0; 16]);
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(b"abcstate");
        let mut source = bytes.as_slice();
        assert_eq!(skip_sessions(&mut source).expect("a table"), 1);
        assert_eq!(source, b"state");
        for cut in 0..bytes.len() - 5 {
            assert!(skip_sessions(&mut &bytes[..cut]).is_err(), "{cut} bytes");
        }
        assert!(skip_sessions(&mut &b"some other content"[..]).is_err());
    }
}
