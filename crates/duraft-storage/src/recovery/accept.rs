//! Gives up what a group has lost, because somebody said so.

use super::Story;
use crate::errors::OpenError;
use crate::index::GroupIndex;
use crate::log::{Headed, Shape};
use crate::repair::Repair;
use duraft_core::{GroupId, HardState, Index, Position, Term};

/// Ends the group's damage by ending its log before the first missing index, if the note names what
/// is lost. The store is changed by the fence, not here.
pub(super) fn accept(story: &mut Story, group: GroupId, note: Repair) -> Result<(), OpenError> {
    if story.damage.is_none() {
        // Accepted in an earlier life, or there never was any.
        return Ok(());
    }
    let range = (note.first, note.last);
    let state = story.groups.get_mut(&group);
    match (state, story.damage.groups.get(&group)) {
        (Some(state), Some(damage)) if damage.loss == range && !damage.snapshot_lost => {
            give_up(state);
            state.repaired(note);
        }
        // Without its snapshot, what is left of a log is the end of a story: the node has to join anew.
        _ => {
            return Err(OpenError::LossNotAccepted {
                group,
                range,
                damage: Box::new(std::mem::take(&mut story.damage)),
            });
        }
    }
    story.damage.groups.remove(&group);
    Ok(())
}

/// What is missing is behind the latest snapshot: replay has seen to that.
fn give_up(state: &mut GroupIndex) {
    if let Some((gap, _)) = state.log.gaps().first().copied() {
        let keep = before(&state.log, gap);
        state
            .truncate(&keep)
            .expect("the boundary before a gap is one of the log");
    }
    let vote_lost = state.lost.is_some_and(|lost| lost.vote);
    let known = state.lost.map_or(Term(0), |lost| lost.floor.term);
    let known = known.max(state.log.end().term()).max(state.hard_state.term);
    if vote_lost || known > state.hard_state.term {
        // At least in the terms it knows of, it votes for nobody twice.
        state.hard_state = HardState {
            term: known.next().unwrap_or(known),
            vote: None,
        };
    }
    state.lost = None;
}

/// The boundary before this gap.
fn before<E: Headed>(log: &Shape<E>, gap: Index) -> Position {
    let held = log.entries().iter().map(|entry| entry.header());
    held.take_while(|header| header.first < gap)
        .last()
        .map_or(log.start(), |header| header.position())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::payload::GroupCheckpoint;
    use crate::index::Lost;
    use duraft_core::{LogId, Membership, NodeId};

    #[test]
    fn whoever_may_have_voted_in_a_term_that_is_lost_votes_in_a_later_one() {
        // Terms: of the vote that is known, of the greatest entry that may have been acknowledged.
        let known = |term| HardState {
            term: Term(term),
            vote: Some(NodeId(2)),
        };
        let later = |term| HardState {
            term: Term(term),
            vote: None,
        };
        for (floor, vote_lost, expected) in [
            (5, false, known(5)),
            (4, false, known(5)),
            (6, false, later(7)),
            (5, true, later(6)),
            (9, true, later(10)),
        ] {
            let mut state = GroupIndex::from_checkpoint(&GroupCheckpoint {
                hard_state: known(5),
                start: Position::START,
                end: Position::START,
                last_membership: Index(0),
                membership: Membership::new([NodeId(1)], []).expect("a voter"),
                snapshot: None,
            });
            let floor = LogId {
                term: Term(floor),
                index: Index(3),
            };
            state.lost = Some(Lost {
                suffix: true,
                vote: vote_lost,
                floor,
            });
            give_up(&mut state);
            assert_eq!(state.hard_state, expected, "{floor:?} {vote_lost}");
            assert_eq!(state.lost, None);
        }
    }
}
