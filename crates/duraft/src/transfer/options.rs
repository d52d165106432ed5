//! Limits of a transfer.

use super::frame::PIECE_BYTES_MAX;

/// How snapshots move. Sizes are bytes, times are ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransferOptions {
    /// Bytes of the file in one frame.
    pub piece_bytes: u32,
    /// Most bytes sent and not acknowledged, per peer; and most bytes a receiver holds that came
    /// early.
    pub window_bytes: u64,
    /// Most bytes sent per tick and peer, or no limit.
    pub bytes_per_tick_max: Option<u64>,
    /// Most bytes sent at once after a pause, where the rate is limited; at least a piece.
    pub burst_bytes_max: u64,
    /// A sender that hears nothing new for so long offers the snapshot again.
    pub resend_ticks: u32,
    /// A side that hears nothing new for so long gives up.
    pub give_up_ticks: u32,
    /// A sender that is told so many times in a row that a part is bad gives up.
    pub bad_parts_max: u32,
}

impl Default for TransferOptions {
    /// Pieces of 256 KiB, a window of 4 MiB, no limit of the rate, patience of 20 and 1200 ticks.
    fn default() -> TransferOptions {
        TransferOptions {
            piece_bytes: 256 << 10,
            window_bytes: 4 << 20,
            bytes_per_tick_max: None,
            burst_bytes_max: 1 << 20,
            resend_ticks: 20,
            give_up_ticks: 1200,
            bad_parts_max: 4,
        }
    }
}

impl TransferOptions {
    /// Every rule that these options break: the field and what it must be.
    pub fn validate(&self) -> Vec<(&'static str, &'static str)> {
        let piece = u64::from(self.piece_bytes);
        let rules = [
            (
                (1..=PIECE_BYTES_MAX).contains(&self.piece_bytes),
                "piece_bytes",
                "from 1 byte to 1 MiB",
            ),
            (
                self.window_bytes >= piece,
                "window_bytes",
                "at least piece_bytes",
            ),
            (
                self.bytes_per_tick_max != Some(0),
                "bytes_per_tick_max",
                "at least 1, or no limit",
            ),
            (
                self.burst_bytes_max >= piece,
                "burst_bytes_max",
                "at least piece_bytes",
            ),
            (self.resend_ticks >= 1, "resend_ticks", "at least 1"),
            (
                self.give_up_ticks > self.resend_ticks,
                "give_up_ticks",
                "greater than resend_ticks",
            ),
            (self.bad_parts_max >= 1, "bad_parts_max", "at least 1"),
        ];
        let broken = rules.into_iter().filter(|(holds, ..)| !holds);
        broken.map(|(_, field, rule)| (field, rule)).collect()
    }
}
