//! A few histories of each kind that other modules walk in hundreds: seconds without optimisation. For
//! the first stage of the mutation tests, and for whoever wants a quick answer.

use crate::support::*;
use crate::{crashes, model};
use duraft_core::GroupId;
use duraft_storage::WalOptions;

#[test]
fn a_few_histories_of_every_kind() {
    let larger = WalOptions {
        slot_bytes: 64 << 10,
        ..options()
    };
    let groups = [GroupId(1), GroupId(2), GroupId(u64::MAX)];
    for seed in 500..504 {
        crashes::run(seed, 512, &options(), &[GROUP], 12);
        crashes::run(seed, 4096, &larger, &groups[..2], 12);
        model::run(seed, &options(), &[GROUP], 60);
        model::run(seed, &larger, &groups, 60);
    }
}
