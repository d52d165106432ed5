//! The faults: what is done wrong, what it is known by, and who may look for it.
//!
//! Ids are those of `docs/seeds.md`; "4.E" names faults that other systems had and that have no id.

use super::Wrong::{self, Core, Disk, Files, Lies};
use super::labs::Lab;
use crate::wal_crash::bank;
use duraft_core::Plant;
use duraft_storage::SnapshotAblation;
use duraft_tests::Sabotage;

#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) ids: &'static str,
    pub(super) wrong: Wrong,
    pub(super) labs: &'static [Lab],
}

impl Fault {
    /// What switches it on.
    pub(super) fn plant(&self) -> String {
        match self.wrong {
            Core(plant) => format!("Plant::{plant:?}"),
            Files(ablation) => format!("SnapshotAblation::{ablation:?}"),
            Disk(sabotage) => format!("Sabotage::{sabotage:?}"),
            Lies => "DiskFaults::lies".into(),
            Wrong::Store(n) | Wrong::Sound(n) => bank::plant(n),
            Wrong::Nothing => String::new(),
        }
    }

    /// The ids that `ids` lists: rules as `RULES n`, all others as they are.
    pub(super) fn known_by(&self) -> Vec<String> {
        let words = self.ids.split("4.E").next().unwrap_or_default();
        let words = words.split([' ', ',', ';']).filter(|word| !word.is_empty());
        let words = words.filter(|word| *word != "RULES");
        let id = |word: &str| match word.parse::<u32>() {
            Ok(rule) => format!("RULES {rule}"),
            Err(_) => word.to_string(),
        };
        words.map(id).collect()
    }
}

const fn fault(name: &'static str, ids: &'static str, wrong: Wrong, labs: &'static [Lab]) -> Fault {
    Fault {
        name,
        ids,
        wrong,
        labs,
    }
}

/// Everybody who runs cores, from the cheapest to the most expensive.
const CORES: &[Lab] = &[
    Lab::Rough,
    Lab::RoughAlone,
    Lab::Situations,
    Lab::Lives,
    Lab::Rot,
    Lab::NodesChange,
    Lab::NodesRead,
    Lab::NodesDamage,
    Lab::NodesLease,
];

/// Of these, those that ship with the product: whole nodes in virtual time.
pub(super) const SHIPPED: &[Lab] = &[
    Lab::NodesChange,
    Lab::NodesRead,
    Lab::NodesDamage,
    Lab::NodesLease,
    Lab::NodesSnapshot,
];

/// The model of asynchronous persistence, over every state of a small cluster of real cores.
const MODEL: &[Lab] = &[Lab::Model];
const MODEL_LOGS: &[Lab] = &[Lab::ModelLogs];
const RIG: &[Lab] = &[Lab::Rough];
const NODES: &[Lab] = &[Lab::Nodes];
const STORAGE: &[Lab] = &[Lab::Storage];
const SNAPSHOTS: &[Lab] = &[Lab::NodesSnapshot];

#[rustfmt::skip]
const FAULTS: &[Fault] = &[
    fault("a vote is granted before it is durable", "RULES 10, C6",
        Core(Plant::EarlyVote), CORES),
    fault("an append is acknowledged before it is durable", "RULES 10, C7",
        Core(Plant::EarlyAck), CORES),
    fault("a leader counts its own copy before it is durable", "r1 n6 C7",
        Core(Plant::LeaderEarly), CORES),
    fault("RequestVote leaves before term and vote are durable", "F2 F3 F4 C1 C2 C4",
        Core(Plant::EarlyRequestVote), CORES),
    fault("a restarted leader leads its term again", "F1 C3 RULES 10",
        Core(Plant::LeaderRestore), CORES),
    fault("messages carry terms that are not durable", "RULES 10",
        Core(Plant::EarlyTerm), CORES),
    fault("term and vote are two writes", "F6 C6",
        Core(Plant::VoteBeforeTerm), CORES),
    fault("a voter votes for everybody who asks", "m8",
        Core(Plant::VotesTwice), CORES),
    fault("a voter forgets its vote in its term", "l6b",
        Core(Plant::ForgetsVote), CORES),
    fault("a vote is given to any log", "r4",
        Core(Plant::VotesForStaleLogs), CORES),
    fault("logs are compared by their length first", "n1 committed_entry_lost",
        Core(Plant::LongerLogWins), CORES),
    fault("votes of an earlier term elect", "l2b r10",
        Core(Plant::GrantsOfEarlierTerms), CORES),
    fault("what was owed in a term is sent in the next", "n5 S22",
        Core(Plant::OwesAcrossTerms), CORES),
    fault("campaigns pile up on a slow disk", "RULES 11",
        Core(Plant::CampaignsPileUp), CORES),
    fault("timeouts do not grow with what writes take", "RULES 11",
        Core(Plant::TimeoutIgnoresDisk), &[Lab::NodesSlow]),
    fault("heartbeats hide a dead connection for data", "RULES 12",
        Core(Plant::HeartbeatsHideStall), &[Lab::NodesLoseData]),
    fault("answers to questions hide that all data is lost", "RULES 12",
        Core(Plant::AnswersHideLoss), &[Lab::NodesLoseData]),
    fault("a batch beyond the quorum's is committed", "r3",
        Core(Plant::CommitsOneMore), CORES),
    fault("an entry of an earlier term is committed by counting", "r8",
        Core(Plant::CommitOldTerm), CORES),
    fault("a follower commits what it has not compared", "m2",
        Core(Plant::CommitsUnverified), CORES),
    fault("a refusal counts as an acknowledgement", "s2",
        Core(Plant::CommitsOnRejection), CORES),
    fault("a leader that gives up commits its whole log", "C5, 4.E: steps down yet keeps acknowledging",
        Core(Plant::CommitsOnStepDown), CORES),
    fault("part of a batch is acknowledged", "RULES 1",
        Core(Plant::AcksPartOfBatch), CORES),
    fault("a follower acknowledges its own tail", "4.E: acknowledges own tail",
        Core(Plant::AcksOwnTail), CORES),
    fault("a follower acknowledges its tail to a heartbeat", "r2",
        Core(Plant::AcksHeartbeats), CORES),
    fault("a repeated append is acknowledged at once", "4.E: duplicate acknowledged ahead of the log",
        Core(Plant::AcksDuplicatesEarly), CORES),
    fault("acknowledgements of earlier terms count", "r10",
        Core(Plant::CountsEarlierTerms), CORES),
    fault("acknowledgements of a peer's earlier lives count", "RULES 15",
        Core(Plant::CountsEarlierLives), CORES),
    fault("a completion counts for whatever stands there now", "r11 RULES 9",
        Core(Plant::CountsCutWrites), CORES),
    fault("a load's answer is taken, whatever is in it", "RULES 9",
        Core(Plant::TakesAnyLoad), CORES),
    fault("an append cuts off whatever follows it", "r9 RULES 2",
        Core(Plant::TruncatesOnAppend), CORES),
    fault("the term of a leader's boundary is not compared", "l4 RULES 2",
        Core(Plant::IgnoresPrevTerm), CORES),
    fault("digests of boundaries are not compared", "RULES 7",
        Core(Plant::IgnoresPrevDigest), &[Lab::NodesForge]),
    fault("digests of batches are not compared", "RULES 3 8",
        Core(Plant::OverlooksDivergence), &[Lab::NodesForge]),
    fault("a contradicted follower halts unasked", "RULES 8",
        Core(Plant::HaltsUnasked), CORES),
    fault("a leader trusts its own copy against a quorum", "RULES 8",
        Core(Plant::TrustsOwnCopy), &[Lab::Situations]),
    fault("divergence is searched entry by entry", "n7",
        Core(Plant::SearchesEntryByEntry), MODEL_LOGS),
    fault("batches are applied before they are durable", "4.E: apply before durable",
        Core(Plant::AppliesUndurable), CORES),
    fault("no limit of bytes refuses anything", "RULES 6, S25",
        Core(Plant::TakesEverything), CORES),
    fault("an older snapshot is installed", "l6 RULES 21",
        Core(Plant::InstallsBackwards), CORES),
    fault("a snapshot replaces a log that holds more", "n3 RULES 21",
        Core(Plant::InstallDropsSuffix), CORES),
    fault("the state is restored before the record is durable", "RULES 21",
        Core(Plant::RestoresEarly), CORES),
    fault("a damaged node votes below what it acknowledged", "RULES 16, C10",
        Core(Plant::ForgetsFloor), CORES),
    fault("a node with a lost end votes", "RULES 15 17",
        Core(Plant::VotesWithLostSuffix), CORES),
    fault("a lost vote is trusted", "RULES 14",
        Core(Plant::TrustsLostVote), &[Lab::NodesVotes]),
    fault("the terms of a majority suffice", "RULES 14",
        Core(Plant::AsksMajority), CORES),
    fault("anything fills a gap", "RULES 16",
        Core(Plant::FillsUnproven), CORES),
    fault("a damaged node campaigns", "RULES 16, C10",
        Core(Plant::DamagedCampaigns), CORES),
    fault("a leader counts what a damaged node had", "RULES 15",
        Core(Plant::KeepsLostMatch), CORES),
    fault("what one leader said of healing counts under the next", "RULES 15",
        Core(Plant::HealsUnderAnyLeader), CORES),
    fault("what an earlier life was told of healing counts", "RULES 15",
        Core(Plant::TakesOldHeal), &[Lab::NodesDamage]),
    fault("a wiped node votes as new", "RULES 18, RB-A12",
        Core(Plant::WipedVotesAsNew), CORES),
    fault("a rolled-back disk is not told", "RULES 18",
        Core(Plant::IgnoresRollback), CORES),
    fault("a change takes effect without a joint membership", "4.E: disjoint majorities",
        Core(Plant::NoJoint), CORES),
    fault("a membership that is cut off stays in use", "4.E: rollback forgotten",
        Core(Plant::NoRollback), CORES),
    fault("a membership changes before the term's first commit", "S9",
        Core(Plant::ChangeBeforeTerm), CORES),
    fault("two changes overlap", "S10",
        Core(Plant::ChangesOverlap), CORES),
    fault("who is no voter yet does not stand", "S6",
        Core(Plant::OnlyVotersStand), CORES),
    fault("the target of a transfer lacks entries", "S24",
        Core(Plant::TransferEarly), CORES),
    fault("a read counts an earlier round", "RULES 26",
        Core(Plant::ReadOldRound), CORES),
    fault("a read is answered before the term's first commit", "4.E: read before first commit",
        Core(Plant::ReadBeforeTerm), CORES),
    fault("an answer to an earlier life's question counts", "RULES 26",
        Core(Plant::ReadsOfEarlierLives), CORES),
    fault("a lease runs from the answer", "F5 RULES 26",
        Core(Plant::LeaseFromReceipt), &[Lab::NodesLease]),
    fault("a restarted voter votes within a lease", "C8 RULES 26",
        Core(Plant::RestartedVoterGrants), &[Lab::NodesRestart]),
    fault("a lease is kept after a handover", "RULES 26",
        Core(Plant::TransferKeepsLease), CORES),
    fault("a voter's promise ends with the term", "RULES 26",
        Core(Plant::PromiseEndsWithTerm), CORES),
    fault("any number of reads may wait", "L5, 4.E: unbounded buffer",
        Core(Plant::ReadsUnbounded), CORES),
    fault("half of the voters elect and commit", "m1 m1b l2 r5",
        Core(Plant::HalfIsQuorum), CORES),
    fault("a voter that answers twice counts for two", "s1 r10",
        Core(Plant::CountsVotesTwice), CORES),
    fault("a candidate does not follow the leader of its term", "r7 n4 m6",
        Core(Plant::CandidateIgnoresLeader), MODEL),
    fault("a request for a vote of the own term deposes", "s4",
        Core(Plant::SameTermVoteDeposes), MODEL),
    fault("a leader's later term is not adopted", "l3",
        Core(Plant::KeepsOwnTerm), CORES),
    fault("nothing is committed but on a peer's word", "m10 s5 n2",
        Core(Plant::SoloNeverCommits), CORES),
    fault("a new leader says nothing before its first heartbeat", "m7",
        Core(Plant::SilentWin), CORES),
    fault("what is lost is not sent again", "r6",
        Core(Plant::NeverResends), CORES),
    fault("a snapshot brings its own term", "l6b n5",
        Core(Plant::InstallLowersTerm), CORES),
    fault("a vote needs length and term both", "l7",
        Core(Plant::VoteNeedsBoth), MODEL_LOGS),
    fault("a refusal goes back to the beginning", "s3 s6",
        Core(Plant::ResendsFromStart), MODEL_LOGS),
    fault("a late vote stops the node", "m3 m4 m4b",
        Core(Plant::PanicsOnLate), CORES),
    fault("an acknowledgement counts for everything sent", "s2",
        Core(Plant::CreditsLatest), CORES),
    fault("no header ever leaves memory", "RULES 25",
        Core(Plant::KeepsShape), CORES),
    fault("a leader whose disk stalls keeps its office", "C9 L5",
        Core(Plant::KeepsStalledOffice), &[Lab::NodesDiskStands]),
    fault("a node goes on after a failed write", "C5, 4.E: completion of a failed write",
        Core(Plant::SurvivesWriteFailed), CORES),
    fault("heartbeats with every tick", "L6",
        Core(Plant::HeartbeatsEveryTick), CORES),
    fault("a question that was refused is asked again at once", "L6",
        Core(Plant::AsksAgainAtOnce), CORES),
    fault("of what a commit passes only the last is applied", "r3b",
        Core(Plant::AppliesLastOnly), CORES),
    fault("a life that begins with a compacted log stops", "l1",
        Core(Plant::PanicsOnCompacted), CORES),
    fault("an append from before a compacted log stops the node", "l5",
        Core(Plant::PanicsBelowStart), CORES),
    fault("a candidate leads without votes", "m5",
        Core(Plant::LeadsUnelected), CORES),
    fault("ids beyond the number of voters name nobody", "m9",
        Core(Plant::DenseIds), CORES),
    fault("a disk that lies", "4.E: lying disk", Lies, NODES),
    fault("a disk reports what it did not write", "4.E: acknowledged from the page cache", Disk(Sabotage::LyingDisk), RIG),
    fault("a disk keeps terms and loses votes", "4.E: vote in page cache only, F6", Disk(Sabotage::LosesVotes), RIG),
    fault("a disk loses truncations", "4.E: truncate in place", Disk(Sabotage::LosesTruncations), RIG),
    fault("a disk completes out of order", "4.E: completions out of order", Disk(Sabotage::ReordersWrites), RIG),
    fault("a snapshot is renamed before its sync", "4.E: snapshot before its file", Files(SnapshotAblation::NoSyncBeforeRename), SNAPSHOTS),
    fault("the name of a snapshot is not synced", "4.E: rename without folder sync", Files(SnapshotAblation::NoDirSync), SNAPSHOTS),
    fault("early vote (model)", "forbidden optimisation of the specification",
        Core(Plant::EarlyVote), MODEL),
    fault("early acknowledgement (model)", "forbidden optimisation of the specification",
        Core(Plant::EarlyAck), MODEL),
    fault("early acknowledgement of a duplicate (model)", "forbidden optimisation of the specification",
        Core(Plant::AcksDuplicatesEarly), MODEL),
    fault("early count of the leader (model)", "forbidden optimisation of the specification",
        Core(Plant::LeaderEarly), MODEL),
    fault("leader restored (model)", "forbidden optimisation of the specification",
        Core(Plant::LeaderRestore), MODEL),
    fault("early RequestVote (model)", "forbidden optimisation of the specification",
        Core(Plant::EarlyRequestVote), MODEL),
    fault("early term (model)", "forbidden optimisation of the specification",
        Core(Plant::EarlyTerm), MODEL),
    fault("commit of an older term (model)", "forbidden optimisation of the specification",
        Core(Plant::CommitOldTerm), MODEL),
    fault("truncation on append (model)", "forbidden optimisation of the specification",
        Core(Plant::TruncatesOnAppend), MODEL),
];

/// Ids of faults of the log.
const OF_LOGS: &[(&str, &str)] = &[
    ("retry after a failed sync", "C5 RULES 22, 4.E"),
    ("stale records of a recycled slot accepted", "RULES 4, 4.E"),
    ("checksum over a length that is trusted", "RULES 5, 4.E"),
    ("completion of a failed write counted", "C5 RULES 9, 4.E"),
    ("completions ahead of their sync", "C7 RULES 22, 4.E"),
    (
        "group commit wakes waiters of the next one",
        "RULES 22, 4.E",
    ),
    ("torn middle of a batch accepted", "RULES 1, 4.E"),
    ("end of the log and damage confused", "C10 RULES 13, 4.E"),
    ("damage forgotten by the next open", "C10 RULES 13, 4.E"),
    ("term and vote in two writes", "F6 C6, 4.E"),
    ("vote in the page cache only", "F6 C6, 4.E"),
    ("slots used again at once", "RULES 19 23, 4.E"),
    ("unproven blocks left where they are", "RULES 19, 4.E"),
    ("appended behind a torn tail", "RULES 19, 4.E"),
    ("receipts without the groups", "RULES 17"),
    ("one checkpoint only", "RULES 20, 4.E"),
    (
        "snapshot committed before the log is reset",
        "RULES 21, 4.E",
    ),
    (
        "log emptied before the snapshot is committed",
        "RULES 21, 4.E",
    ),
    ("compaction before its snapshot is durable", "RULES 21, 4.E"),
];

/// All faults: those here, and those of the log's own bank.
pub(super) fn all() -> Vec<Fault> {
    let of_logs = (0..bank::faults()).map(|n| {
        let (name, ids) = bank::name(n);
        let known = OF_LOGS.iter().find(|(known, _)| *known == name);
        fault(
            name,
            known.map_or(ids, |(_, ids)| ids),
            Wrong::Store(n),
            STORAGE,
        )
    });
    FAULTS.iter().copied().chain(of_logs).collect()
}
