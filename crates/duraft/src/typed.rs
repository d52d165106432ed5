//! Commands, answers and snapshots as types: an adaptor over the bytes of [`StateMachine`].
//!
//! Commands and answers are encoded with postcard, which is compact and does not describe itself:
//! whoever decodes must know the type. What may be changed while old commands lie in the log, or
//! old nodes run, is little: an enum may get new variants at its end, and that is all. Put commands
//! into an enum from the beginning.
//!
//! A command that cannot be decoded does not reach the state machine, on no node, and its client is
//! told so: [`TypedError::NotUnderstood`]. Every node must decide alike, so that is all that happens.

use crate::apply::{ApplyContext, SnapshotWork, StateMachine};
use crate::node::Node;
use crate::outcome::{Applied, RequestError, RequestErrorKind};
use crate::responder::{Pending, ProposeFuture};
use bytes::Bytes;
use duraft_core::{Index, LogId, NodeId, ReadBasis};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// An answer begins with one of these.
const UNDERSTOOD: u8 = 0;
const NOT_UNDERSTOOD: u8 = 1;

/// [`StateMachine`] over types instead of bytes. Start a node with [`Typed`] around it.
///
/// ```
/// use duraft::{ApplyContext, TypedMachine};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Default)]
/// struct Account(i64);
///
/// #[derive(Serialize, Deserialize)]
/// enum Order {
///     Deposit(u32),
///     Withdraw(u32),
/// }
///
/// impl TypedMachine for Account {
///     type Command = Order;
///     type Response = Result<i64, String>;
///     type Snapshot = i64;
///
///     fn apply(&mut self, _context: ApplyContext, order: Order) -> Result<i64, String> {
///         let change = match order {
///             Order::Deposit(amount) => i64::from(amount),
///             Order::Withdraw(amount) => -i64::from(amount),
///         };
///         if self.0 + change < 0 {
///             return Err("there is not enough".into());
///         }
///         self.0 += change;
///         Ok(self.0)
///     }
///
///     fn snapshot(&self) -> i64 {
///         self.0
///     }
///
///     fn restore(&mut self, balance: i64) {
///         self.0 = balance;
///     }
/// }
/// ```
pub trait TypedMachine: Send + 'static {
    /// What clients propose.
    type Command: Serialize + DeserializeOwned;
    /// What they are answered.
    type Response: Serialize + DeserializeOwned;
    /// A consistent view of the state. It is encoded and decoded as a whole: for states that are
    /// large, implement [`StateMachine`], which streams.
    type Snapshot: Serialize + DeserializeOwned + Send + 'static;

    /// See [`StateMachine::apply`].
    fn apply(&mut self, context: ApplyContext, command: Self::Command) -> Self::Response;

    /// See [`StateMachine::snapshot`]. Encoded on the snapshot thread.
    fn snapshot(&self) -> Self::Snapshot;

    /// See [`StateMachine::restore`].
    fn restore(&mut self, snapshot: Self::Snapshot);

    /// See [`StateMachine::applied`].
    fn applied(&self) -> Option<Index> {
        None
    }
}

/// A [`TypedMachine`] as a [`StateMachine`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Typed<M>(pub M);

impl<M: TypedMachine> Typed<M> {
    /// The bytes of a command, for whoever sends them another way, as in a
    /// [`Session`](crate::Session).
    pub fn encode(command: &M::Command) -> Result<Bytes, TypedError> {
        match postcard::to_stdvec(command) {
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(error) => Err(TypedError::Encode(error.to_string())),
        }
    }

    /// What the bytes of an answer mean.
    pub fn decode(applied: &Applied) -> Result<TypedApplied<M::Response>, TypedError> {
        let unreadable = |message: &str| TypedError::Decode {
            log_id: applied.log_id,
            message: message.into(),
        };
        match applied.response.split_first() {
            Some((&UNDERSTOOD, rest)) => match whole(rest) {
                Ok(response) => Ok(TypedApplied {
                    log_id: applied.log_id,
                    response,
                }),
                Err(error) => Err(unreadable(&error.to_string())),
            },
            Some((&NOT_UNDERSTOOD, why)) => Err(TypedError::NotUnderstood {
                log_id: applied.log_id,
                message: String::from_utf8_lossy(why).into_owned(),
            }),
            Some(_) | None => Err(unreadable("the node runs a state machine without types")),
        }
    }
}

impl<M: TypedMachine> StateMachine for Typed<M> {
    fn apply(&mut self, context: ApplyContext, command: &[u8]) -> Bytes {
        let command: M::Command = match whole(command) {
            Ok(command) => command,
            Err(error) => {
                let mut answer = vec![NOT_UNDERSTOOD];
                answer.extend_from_slice(error.to_string().as_bytes());
                return answer.into();
            }
        };
        let response = self.0.apply(context, command);
        let answer = postcard::to_extend(&response, vec![UNDERSTOOD]);
        // Only a type that refuses to be written fails, and it does so on every node.
        answer.map_or_else(|_| Bytes::new(), Bytes::from)
    }

    fn snapshot(&self) -> SnapshotWork {
        let view = self.0.snapshot();
        Box::new(move |out| {
            let bytes = postcard::to_stdvec(&view).map_err(io::Error::other)?;
            out.write_all(&bytes)
        })
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        self.0.restore(whole(&bytes).map_err(invalid)?);
        Ok(())
    }

    fn applied(&self) -> Option<Index> {
        self.0.applied()
    }
}

/// Decodes all of these bytes: what is left over would be a command that two versions read in two
/// ways.
fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        (_, _) => Err(postcard::Error::DeserializeBadEncoding),
    }
}

/// A command that was committed and applied, and its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TypedApplied<R> {
    /// The command's place in the log.
    pub log_id: LogId,
    /// What the state machine answered.
    pub response: R,
}

/// Why a typed request was not answered as asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedError {
    /// The node did not answer as asked.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The command refuses to be encoded. It was not proposed.
    #[error("the command cannot be encoded: {0}")]
    Encode(String),
    /// The nodes cannot decode the command: they run another version of its type. It has a place in
    /// the log and no effect.
    #[error("the command at {log_id} is not understood by the state machine: {message}")]
    NotUnderstood {
        /// The command's place in the log.
        log_id: LogId,
        /// The nodes' reason.
        message: String,
    },
    /// The command took effect; its answer cannot be decoded here.
    #[error("the command at {log_id} took effect, and its answer cannot be decoded: {message}")]
    Decode {
        /// The command's place in the log.
        log_id: LogId,
        /// The reason.
        message: String,
    },
}

impl TypedError {
    /// What can be concluded: as [`RequestError::kind`].
    pub fn kind(&self) -> RequestErrorKind {
        match self {
            TypedError::Request(error) => error.kind(),
            TypedError::Encode(_) | TypedError::NotUnderstood { .. } => RequestErrorKind::Rejected,
            TypedError::Decode { .. } => RequestErrorKind::OutcomeUnknown,
        }
    }

    /// As [`RequestError::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        match self {
            TypedError::Request(error) => error.is_retryable(),
            TypedError::Encode(_)
            | TypedError::NotUnderstood { .. }
            | TypedError::Decode { .. } => false,
        }
    }

    /// As [`RequestError::leader_hint`].
    pub fn leader_hint(&self) -> Option<NodeId> {
        match self {
            TypedError::Request(error) => error.leader_hint(),
            TypedError::Encode(_)
            | TypedError::NotUnderstood { .. }
            | TypedError::Decode { .. } => None,
        }
    }
}

/// A handle to a node that runs a [`Typed`] state machine `M`; from [`Node::typed`].
pub struct TypedNode<M> {
    node: Node,
    machine: PhantomData<fn() -> M>,
}

impl<M> Clone for TypedNode<M> {
    fn clone(&self) -> TypedNode<M> {
        TypedNode {
            node: self.node.clone(),
            machine: PhantomData,
        }
    }
}

impl<M> std::fmt::Debug for TypedNode<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TypedNode").field(&self.node).finish()
    }
}

impl Node {
    /// This node for types: for one that was started with [`Typed`] around an `M`.
    pub fn typed<M: TypedMachine>(&self) -> TypedNode<M> {
        TypedNode {
            node: self.clone(),
            machine: PhantomData,
        }
    }
}

impl<M: TypedMachine> TypedNode<M> {
    /// The node, for all that has no types.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// As [`Node::propose`].
    ///
    /// Cancel safety: dropping the future changes nothing for the command.
    pub fn propose(&self, command: &M::Command) -> TypedFuture<M> {
        let state = match Typed::<M>::encode(command) {
            Ok(bytes) => Ok(self.node.propose(bytes)),
            Err(error) => Err(error),
        };
        TypedFuture {
            state,
            machine: PhantomData,
        }
    }

    /// As [`Node::propose_wait`].
    pub fn propose_wait(
        &self,
        command: &M::Command,
        timeout: Duration,
    ) -> Result<TypedApplied<M::Response>, TypedError> {
        let bytes = Typed::<M>::encode(command)?;
        Typed::<M>::decode(&self.node.propose_wait(bytes, timeout)?)
    }

    /// As [`Node::read`].
    ///
    /// Cancel safety: dropping the future changes nothing but that nobody hears the answer.
    pub fn read<R: Send + 'static>(
        &self,
        basis: ReadBasis,
        mut read: impl FnMut(&M) -> R + Send + 'static,
    ) -> Pending<R> {
        self.node
            .read(basis, move |typed: &Typed<M>| read(&typed.0))
    }

    /// As [`Node::read_wait`].
    pub fn read_wait<R: Send + 'static>(
        &self,
        basis: ReadBasis,
        timeout: Duration,
        mut read: impl FnMut(&M) -> R + Send + 'static,
    ) -> Result<R, RequestError> {
        self.node
            .read_wait(basis, timeout, move |typed: &Typed<M>| read(&typed.0))
    }
}

/// The outcome of one typed command, as a future that needs no particular executor.
///
/// Cancel safety: dropping it changes nothing; the command goes on.
#[must_use = "the outcome is known only from its future"]
pub struct TypedFuture<M> {
    state: Result<ProposeFuture, TypedError>,
    machine: PhantomData<fn() -> M>,
}

impl<M: TypedMachine> Future for TypedFuture<M> {
    type Output = Result<TypedApplied<M::Response>, TypedError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            Ok(pending) => Pin::new(pending)
                .poll(cx)
                .map(|outcome| Typed::<M>::decode(&outcome?)),
            Err(error) => Poll::Ready(Err(error.clone())),
        }
    }
}
