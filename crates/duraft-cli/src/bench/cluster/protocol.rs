//! What parent and child processes say to each other over the child's standard input and output:
//! fixed-size little-endian frames, no versions, both ends are the same binary.

use super::command::CommandId;
use super::load::{Answer, Counters, Outcome};
use std::io::{self, Read, Write};

/// Size of every frame, both ways.
pub(crate) const FRAME_BYTES: usize = 32;

/// Parent to child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Propose the command with this identity.
    Submit(CommandId),
    /// Tell your counters.
    Count,
    /// Tell how long the stages of commands took.
    Stages,
}

/// Child to parent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Report {
    /// The node has started and listens.
    Ready,
    /// What became of a command.
    Answer(Answer),
    /// Answer to [`Order::Count`].
    Counters(Counters),
    /// A part of the answer to [`Order::Stages`]: so many values of a stage in a bucket.
    Stage { place: u8, end: u64, count: u64 },
    /// The end of that answer.
    StagesEnd,
}

impl Order {
    /// Appends the frame.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Order::Submit(id) => frame(out, 1, 0, id.client, [id.seq, 0]),
            Order::Count => frame(out, 2, 0, 0, [0, 0]),
            Order::Stages => frame(out, 3, 0, 0, [0, 0]),
        }
    }

    /// The next frame, or `None` at the end of the stream.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Option<Order>> {
        let Some(frame) = read_frame(from)? else {
            return Ok(None);
        };
        match frame[0] {
            1 => Ok(Some(Order::Submit(command_id(&frame)))),
            2 => Ok(Some(Order::Count)),
            3 => Ok(Some(Order::Stages)),
            other => Err(unknown(other)),
        }
    }
}

impl Report {
    /// Appends the frame.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Report::Ready => frame(out, 1, 0, 0, [0, 0]),
            Report::Answer(Answer { id, outcome }) => {
                let (code, leader) = match outcome {
                    Outcome::Applied => (1, 0),
                    Outcome::Refused { leader: None } => (2, 0),
                    Outcome::Refused { leader: Some(node) } => (3, node as u64),
                    Outcome::Unknown => (4, 0),
                };
                frame(out, 2, code, id.client, [id.seq, leader]);
            }
            Report::Counters(c) => {
                frame(
                    out,
                    3,
                    u8::from(c.leads),
                    0,
                    [c.group_commits, c.commit_bytes],
                );
            }
            Report::Stage { place, end, count } => frame(out, 4, place, 0, [end, count]),
            Report::StagesEnd => frame(out, 5, 0, 0, [0, 0]),
        }
    }

    /// The next frame, or `None` at the end of the stream.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Option<Report>> {
        let Some(frame) = read_frame(from)? else {
            return Ok(None);
        };
        let report = match frame[0] {
            1 => Report::Ready,
            2 => {
                let outcome = match frame[1] {
                    1 => Outcome::Applied,
                    2 => Outcome::Refused { leader: None },
                    3 => Outcome::Refused {
                        leader: usize::try_from(word(&frame, 16)).ok(),
                    },
                    4 => Outcome::Unknown,
                    other => return Err(unknown(other)),
                };
                Report::Answer(Answer {
                    id: command_id(&frame),
                    outcome,
                })
            }
            3 => Report::Counters(Counters {
                leads: frame[1] == 1,
                group_commits: word(&frame, 8),
                commit_bytes: word(&frame, 16),
            }),
            4 => Report::Stage {
                place: frame[1],
                end: word(&frame, 8),
                count: word(&frame, 16),
            },
            5 => Report::StagesEnd,
            other => return Err(unknown(other)),
        };
        Ok(Some(report))
    }
}

/// Writes what has gathered in `out` and empties it.
pub(crate) fn flush(to: &mut impl Write, out: &mut Vec<u8>) -> io::Result<()> {
    to.write_all(out)?;
    to.flush()?;
    out.clear();
    Ok(())
}

fn frame(out: &mut Vec<u8>, kind: u8, code: u8, client: u32, words: [u64; 2]) {
    out.extend_from_slice(&[kind, code, 0, 0]);
    out.extend_from_slice(&client.to_le_bytes());
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&[0; FRAME_BYTES - 24]);
}

fn read_frame(from: &mut impl Read) -> io::Result<Option<[u8; FRAME_BYTES]>> {
    let mut frame = [0; FRAME_BYTES];
    match from.read_exact(&mut frame) {
        Ok(()) => Ok(Some(frame)),
        // A killed child may leave a torn frame behind: the stream ends before it.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn word(frame: &[u8; FRAME_BYTES], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&frame[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn command_id(frame: &[u8; FRAME_BYTES]) -> CommandId {
    let client = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]);
    CommandId {
        client,
        seq: word(frame, 8),
    }
}

fn unknown(kind: u8) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a frame of unknown kind {kind}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_reads_back_and_a_torn_one_ends_the_stream() {
        let id = CommandId {
            client: 9,
            seq: u64::MAX - 3,
        };
        let mut out = Vec::new();
        Order::Submit(id).encode(&mut out);
        Order::Count.encode(&mut out);
        out.truncate(out.len() - 1);
        let mut from = out.as_slice();
        assert_eq!(Order::read(&mut from).unwrap(), Some(Order::Submit(id)));
        assert_eq!(Order::read(&mut from).unwrap(), None);

        let outcomes = [
            Outcome::Applied,
            Outcome::Refused { leader: None },
            Outcome::Refused { leader: Some(2) },
            Outcome::Unknown,
        ];
        for outcome in outcomes {
            let mut out = Vec::new();
            Report::Answer(Answer { id, outcome }).encode(&mut out);
            assert_eq!(out.len(), FRAME_BYTES);
            let report = Report::read(&mut out.as_slice()).unwrap();
            assert!(
                matches!(report, Some(Report::Answer(a)) if a.id == id && a.outcome == outcome),
                "{report:?}"
            );
        }
    }

    #[test]
    fn counts_of_stages_read_back() {
        let mut out = Vec::new();
        Order::Stages.encode(&mut out);
        let order = Order::read(&mut out.as_slice()).unwrap();
        assert_eq!(order, Some(Order::Stages));
        out.clear();
        let (place, end, count) = (6, u64::MAX, 7);
        Report::Stage { place, end, count }.encode(&mut out);
        Report::StagesEnd.encode(&mut out);
        let mut from = out.as_slice();
        let first = Report::read(&mut from).unwrap();
        assert!(
            matches!(
                first,
                Some(Report::Stage {
                    place: 6,
                    end: u64::MAX,
                    count: 7
                })
            ),
            "{first:?}"
        );
        let second = Report::read(&mut from).unwrap();
        assert!(matches!(second, Some(Report::StagesEnd)), "{second:?}");
    }

    #[test]
    fn a_frame_of_unknown_kind_is_an_error() {
        let mut out = vec![77; FRAME_BYTES];
        assert_eq!(
            Order::read(&mut out.as_slice()).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        out[0] = 2;
        assert!(
            Report::read(&mut out.as_slice()).is_err(),
            "unknown outcome"
        );
    }
}
