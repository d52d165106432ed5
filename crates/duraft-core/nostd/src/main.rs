//! A program without the standard library that runs the consensus core.
//!
//! If duraft-core, or anything it depends on, pulled in `std`, this would not build: `std` brings a
//! panic handler, and there may be one only. The program elects a single voter and commits its
//! first batch, so that the linker must resolve what `step` really needs.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};
use duraft_core::{
    Boot, Completion, Config, GroupId, HardState, Incarnation, Index, Input, Membership, NodeId,
    Output, Position, Raft,
};

const ARENA_BYTES: usize = 1 << 20;

#[repr(align(64))]
struct Arena(core::cell::UnsafeCell<[u8; ARENA_BYTES]>);

/// Hands out an arena from the front and takes nothing back.
struct Bump {
    arena: Arena,
    used: AtomicUsize,
}

// SAFETY: the arena is only reached through `alloc`, which hands out disjoint parts of it.
unsafe impl Sync for Bump {}

// SAFETY: `used` only grows and each call takes the part it moved over, aligned within the arena,
// whose own alignment covers every type used here; larger alignments get null.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size() + layout.align();
        let from = self.used.fetch_add(size, Ordering::Relaxed);
        let aligned = from.next_multiple_of(layout.align());
        if layout.align() > 64 || aligned + layout.size() > ARENA_BYTES {
            return core::ptr::null_mut();
        }
        // SAFETY: the sum was just compared with the size of the arena.
        unsafe { self.arena.0.get().cast::<u8>().add(aligned) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Bump = Bump {
    arena: Arena(core::cell::UnsafeCell::new([0; ARENA_BYTES])),
    used: AtomicUsize::new(0),
};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

// The precompiled `alloc` of hosts that unwind names this symbol; nothing here unwinds.
#[cfg(not(target_family = "wasm"))]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

// On a host with an operating system the C library starts the program and provides memcpy.
#[cfg(not(target_family = "wasm"))]
#[link(name = "c")]
unsafe extern "C" {}

/// Exit code 0 if the core led and committed.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    i32::from(!leads_and_commits())
}

fn leads_and_commits() -> bool {
    let id = NodeId(1);
    let Ok(membership) = Membership::new([id], []) else {
        return false;
    };
    let boot = Boot {
        incarnation: Incarnation(1),
        hard_state: HardState::default(),
        start: Position::START,
        batches: Vec::new(),
        membership,
    };
    let Ok(mut raft) = Raft::new(Config::new(id, GroupId(1), 1), boot) else {
        return false;
    };
    let mut out = Vec::new();
    for _ in 0..40 {
        raft.step(Input::Tick, &mut out);
        let written = out.drain(..).find_map(|output| match output {
            Output::Persist(write) => Some(write.seq),
            _ => None,
        });
        if let Some(upto) = written {
            let done = Completion::Persisted { upto };
            raft.step(Input::Completed(done), &mut out);
        }
    }
    let upto = raft.last_issued();
    raft.step(Input::Completed(Completion::Persisted { upto }), &mut out);
    raft.commit() == Index(1)
}
