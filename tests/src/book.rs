//! The snippets of the book: each page's Rust blocks are compiled and run as documentation tests.
//! `tidy_docs` checks that no page with such a block is left out.

/// Makes the blocks of pages documentation tests.
macro_rules! pages {
    ($($item:ident: $page:literal,)*) => {
        $(
            #[doc = include_str!(concat!("../../docs/", $page))]
            pub struct $item;
        )*
    };
}

pages! {
    CoreAlone: "guides/core-alone.md",
    Embed: "guides/embed.md",
    FaultStorage: "guides/fault-storage.md",
    LogAlone: "guides/log-alone.md",
    Membership: "guides/membership.md",
    Outcomes: "guides/outcomes.md",
    OwnState: "guides/own-state.md",
    Typed: "guides/typed.md",
}
