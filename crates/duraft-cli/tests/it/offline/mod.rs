//! Commands that change a store by hand, on stores that real nodes have written.

mod force;
mod loss;
