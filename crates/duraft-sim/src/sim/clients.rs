//! Clients: what they ask for, and what they make of the answers.
//!
//! A plain command is sent once. A client with a session sends one numbered command after the other,
//! each again, to whomever, until it knows the outcome. A read must show everything that anybody was
//! told before it was asked: commands by their acknowledgement, states by an earlier read.

use super::{Sim, Step};
use crate::config::{CERTAIN, SimConfig};
use crate::fault::{FaultKind, between, place};
use crate::recorder::{Recorder, numbered, taken_apart};
use crate::trace::{TraceEvent, TraceKind};
use crate::workload::{Call, Request};
use bytes::Bytes;
use duraft::{
    Admin, DriverInput, Outcome, Proposal, ReadDone, ReadJob, ReadRequest, RejectReason,
    RequestError, Responder, SessionCommand, SessionId, SessionLimits, UnknownReason,
};
use duraft_core::{NodeId, ReadBasis, RoleKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a client was told.
#[derive(Debug)]
pub(super) enum Told {
    /// How a command ended, and whose it is, if it was sent in a session.
    Command {
        number: u64,
        by: Option<Asker>,
        outcome: Outcome,
    },
    /// A session was asked for.
    Session { client: usize, outcome: Outcome },
    /// How many commands a read saw, and what it was answered.
    Read {
        asked: Box<Reading>,
        outcome: Result<(u64, Bytes), RequestError>,
    },
    /// Leadership was to move.
    Handover(Result<(), RequestError>),
    /// The membership was to change.
    Change(Outcome),
}

/// Who waits for a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asker {
    /// A client without a session.
    Plain(usize),
    /// A client with one.
    Session(usize),
}

/// A read on its way.
#[derive(Debug)]
pub(super) struct Reading {
    client: usize,
    called: u64,
    query: Bytes,
    basis: ReadBasis,
    /// Commands that it must see.
    floor: u64,
}

/// A client with a session.
#[derive(Debug, Default)]
pub(super) struct Client {
    session: Option<SessionId>,
    /// Numbers used in the session.
    used: u64,
    /// The command that has no known outcome yet, and its bytes.
    command: Option<(u64, Bytes)>,
    /// It waits for an answer.
    waits: bool,
}

/// Requests that are not commands: how many were made and answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Requests {
    made: u64,
    told: u64,
    /// Commands that some client knows to be applied.
    pub(super) floor: u64,
}

impl Sim {
    /// Clients send commands, mostly to whom they believe to lead.
    pub(super) fn clients_tick(&mut self) {
        let clients = self.config.clients;
        if self.wishes(clients.propose) {
            let host = self.likely_leader();
            let burst = 1 + self.dice.clients.below(4);
            for _ in 0..burst {
                if let Some(client) = self.free_client() {
                    self.propose(host, Some(client));
                }
            }
        }
        for client in 0..self.clients.len() {
            if self.wishes(clients.propose.max(1_000)) {
                let host = self.likely_leader();
                self.session_turn(client, host);
            }
        }
        if self.wishes(clients.read) {
            let host = self.some_leader();
            if let Some(client) = self.free_client() {
                self.read(host, client);
            }
        }
        if self.strikes(FaultKind::Handover, clients.handover) {
            let host = self.likely_leader();
            self.hand_over(host);
        }
        if self.strikes(FaultKind::Membership, clients.change) {
            let host = self.likely_leader();
            self.change_membership(host);
        }
    }

    pub(super) fn requests_made(&mut self) {
        self.requests.made += 1;
    }

    fn likely_leader(&mut self) -> usize {
        let leaders = self.leaders();
        let anyone = self.any_host();
        match leaders.last_key_value() {
            Some((_, leader)) if self.dice.clients.below(8) > 0 => *leader,
            _ => anyone,
        }
    }

    /// Whoever believes to lead, also one whose time is over, or anybody.
    fn some_leader(&mut self) -> usize {
        let leaders: Vec<usize> = self.leaders().into_values().collect();
        let anyone = self.any_host();
        let at =
            usize::try_from(self.dice.clients.below(leaders.len() as u64 + 1)).expect("few nodes");
        leaders.get(at).copied().unwrap_or(anyone)
    }

    pub(super) fn any_host(&mut self) -> usize {
        usize::try_from(self.dice.clients.below(self.hosts.len() as u64)).expect("few nodes")
    }

    /// The living nodes that lead, by term.
    pub(super) fn leaders(&self) -> BTreeMap<u64, usize> {
        let living = self.hosts.iter().enumerate();
        living
            .filter_map(|(at, host)| Some((at, host.life.as_ref()?.driver.raft())))
            .filter(|(_, raft)| raft.role() == RoleKind::Leader)
            .map(|(at, raft)| (raft.term().0, at))
            .collect()
    }

    /// A client without a session that waits for nothing.
    fn free_client(&mut self) -> Option<usize> {
        let free: Vec<usize> = (0..self.busy.len()).filter(|at| !self.busy[*at]).collect();
        let at = place(&mut self.dice.clients, free.len());
        free.get(at).copied()
    }

    /// The moment of a call, and with one more that of an answer: calls come first in an event.
    fn moment(&self) -> u64 {
        2 * self.report.events
    }

    /// What a client asks for next, as a command.
    fn command(&mut self, client: u64) -> (u64, Bytes) {
        let number = self.history.submitted;
        self.history.submitted += 1;
        let workload = Arc::clone(&self.config.workload);
        let request = workload.request(client, &mut self.dice.clients);
        let (Request::Command(bytes) | Request::Query(bytes)) = &request;
        let padding = self
            .dice
            .clients
            .below(self.config.clients.command_bytes_max + 1);
        let padding = usize::try_from(padding).expect("commands are small");
        let command = numbered(number, bytes, padding);
        let now = self.moment();
        self.history.asked(number, client, request, now);
        (number, command)
    }

    pub(super) fn deadline(&mut self, host: usize) -> Option<u64> {
        let patience = between(&mut self.dice.clients, 5, 200);
        Some(self.hosts[host].clock(self.now) / SimConfig::TICK + patience)
    }

    /// A command without a session, of a client or of nobody in particular.
    pub(super) fn propose(&mut self, host: usize, client: Option<usize>) {
        if self.hosts[host].life.is_none() {
            return;
        }
        let (number, command) =
            self.command(client.unwrap_or(self.busy.len() + self.clients.len()) as u64);
        if let Some(client) = client {
            self.busy[client] = true;
        }
        self.history.sent(number);
        let answers = self.answers.clone();
        let responder = Responder::call(move |outcome| {
            let by = client.map(Asker::Plain);
            answers.lock().push(Told::Command {
                number,
                by,
                outcome,
            });
        });
        let proposal = Proposal::plain(command, self.deadline(host), responder);
        self.input(host, DriverInput::Propose(proposal));
    }

    /// A client with a session sends what it has to send, if it does not wait.
    fn session_turn(&mut self, client: usize, host: usize) {
        if self.clients[client].waits || self.hosts[host].life.is_none() {
            return;
        }
        self.clients[client].waits = true;
        let (deadline, answers) = (self.deadline(host), self.answers.clone());
        let Some(session) = self.clients[client].session else {
            let limits = SessionLimits {
                sessions_max: 4,
                answers_max: 2,
                idle_entries_max: self.config.clients.session_idle_entries,
            };
            self.requests.made += 1;
            let responder = Responder::call(move |outcome| {
                answers.lock().push(Told::Session { client, outcome });
            });
            let proposal = Proposal::open_session(limits, deadline, responder);
            self.input(host, DriverInput::Propose(proposal));
            return;
        };
        let (number, command) = match self.clients[client].command.clone() {
            Some(again) => {
                self.report.retries += 1;
                again
            }
            None => {
                self.clients[client].used += 1;
                self.command((self.busy.len() + client) as u64)
            }
        };
        self.clients[client].command = Some((number, command.clone()));
        self.history.sent(number);
        let used = self.clients[client].used;
        let command = SessionCommand {
            session,
            number: used,
            acknowledged: used - 1,
            command,
        };
        let responder = Responder::call(move |outcome| {
            let by = Some(Asker::Session(client));
            answers.lock().push(Told::Command {
                number,
                by,
                outcome,
            });
        });
        let proposal = Proposal::numbered(command, deadline, responder);
        self.input(host, DriverInput::Propose(proposal));
    }

    fn read(&mut self, host: usize, client: usize) {
        if self.hosts[host].life.is_none() {
            return;
        }
        let by_quorum = CERTAIN - self.config.clients.by_lease.min(CERTAIN);
        let basis = if self.dice.clients.below(CERTAIN) < by_quorum {
            ReadBasis::Quorum
        } else {
            ReadBasis::Lease
        };
        self.requests.made += 1;
        self.busy[client] = true;
        let workload = Arc::clone(&self.config.workload);
        let query = workload.query(client as u64, &mut self.dice.clients);
        let asked = Box::new(Reading {
            client,
            called: self.moment(),
            query: query.clone(),
            basis,
            floor: self.requests.floor,
        });
        let answers = self.answers.clone();
        let responder = Responder::call(move |outcome| {
            answers.lock().push(Told::Read { asked, outcome });
        });
        let see = move |recorder: &Recorder| (recorder.len(), recorder.query(&query));
        let request = ReadRequest {
            basis,
            deadline: self.deadline(host),
            job: ReadJob::new(see, responder),
        };
        self.input(host, DriverInput::Read(request));
    }

    /// Reads whose closure has run are answered, or asked again.
    pub(super) fn deliver_reads(&mut self, host: usize, done: Vec<ReadDone>) {
        let now = self.boottime(host);
        for read in done {
            if let Err(late) = read.deliver(now) {
                self.report.late_leases += 1;
                self.input(host, DriverInput::Read(late));
            }
        }
    }

    /// Somebody wants another leader.
    fn hand_over(&mut self, host: usize) {
        if self.hosts[host].life.is_none() {
            return;
        }
        let kind = self.dice.clients.below(8);
        if kind == 0 {
            self.input(host, DriverInput::Admin(Admin::ForgetLeader));
            return;
        }
        self.requests.made += 1;
        let answers = self.answers.clone();
        let responder = Responder::call(move |outcome| {
            answers.lock().push(Told::Handover(outcome));
        });
        let admin = if kind == 1 {
            Admin::StepDown { responder }
        } else {
            let to = NodeId(1 + self.any_host() as u64);
            Admin::Transfer { to, responder }
        };
        self.input(host, DriverInput::Admin(admin));
    }

    /// Does no client wait for anything?
    pub(super) fn is_quiet(&self) -> bool {
        self.history.is_quiet() && self.requests.made == self.requests.told
    }

    /// Who waits, for people.
    pub(super) fn waiting(&self) -> String {
        let mut text = format!(
            "{:?}, commands {:?}",
            self.requests,
            self.history.unanswered()
        );
        for host in &self.hosts {
            if let Some(life) = &host.life {
                let (commands, reads) = (life.driver.waiting(), life.driver.waiting_reads());
                let work = life.work.len();
                text.push_str(&format!(
                    ", node {}: {commands} commands, {reads} reads, {work} pieces of work",
                    host.id
                ));
            }
        }
        text
    }

    /// Clients were told something: is it so?
    pub(super) fn check_answers(&mut self) -> Step {
        let answers = std::mem::take(&mut *self.answers.lock());
        for told in answers {
            match told {
                Told::Command {
                    number,
                    by,
                    outcome,
                } => self.command_ended(number, by, outcome)?,
                Told::Session { client, outcome } => {
                    self.requests.told += 1;
                    self.clients[client].waits = false;
                    if let Ok(applied) = outcome {
                        self.check_applied(&applied, || "a session".into())?;
                        self.clients[client].session = Some(SessionId(applied.log_id.index.0));
                        self.clients[client].used = 0;
                        self.report.sessions += 1;
                    }
                }
                Told::Read { asked, outcome } => self.read_ended(&asked, outcome)?,
                Told::Handover(outcome) => {
                    self.requests.told += 1;
                    self.report.handovers += u64::from(outcome.is_ok());
                }
                Told::Change(outcome) => {
                    self.requests.told += 1;
                    if let Ok(applied) = outcome {
                        self.check_applied(&applied, || "a membership".into())?;
                        self.report.changes += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn command_ended(&mut self, number: u64, by: Option<Asker>, outcome: Outcome) -> Step {
        if let Ok(applied) = &outcome {
            self.check_applied(applied, || format!("command {number}"))?;
            let place = taken_apart(&applied.response);
            let (place, _) = place.ok_or_else(|| format!("D1: command {number} has no answer"))?;
            self.requests.floor = self.requests.floor.max(place + 1);
        }
        self.trace(|| TraceEvent::new(TraceKind::Client, format!("command {number}: {outcome:?}")));
        self.report
            .fold(&[self.now, number, u64::from(outcome.is_ok())]);
        match by {
            None => {}
            Some(Asker::Plain(client)) => self.busy[client] = false,
            Some(Asker::Session(client)) => {
                let client = &mut self.clients[client];
                client.waits = false;
                match &outcome {
                    Ok(_) => client.command = None,
                    Err(error) if is_over(error) => {
                        // Whether the command was applied is known to nobody, and the session is gone.
                        self.report.sessions_expired += 1;
                        *client = Client::default();
                    }
                    Err(_) => {}
                }
            }
        }
        let now = self.moment() + 1;
        self.history.answered(number, outcome, now)
    }

    /// D4, D5: a read shows whatever anybody knew before it was asked.
    fn read_ended(&mut self, asked: &Reading, outcome: Result<(u64, Bytes), RequestError>) -> Step {
        self.requests.told += 1;
        self.busy[asked.client] = false;
        let Ok((seen, response)) = outcome else {
            self.report.reads_failed += 1;
            return Ok(());
        };
        self.report.promises += 1;
        match asked.basis {
            ReadBasis::Quorum => self.report.reads += 1,
            ReadBasis::Lease => self.report.lease_reads += 1,
        }
        let (floor, basis) = (asked.floor, asked.basis);
        self.trace(|| {
            let text = format!("read ({basis:?}) saw {seen} commands, had to see {floor}");
            TraceEvent::new(TraceKind::Client, text)
        });
        if seen < floor && self.config.check_reads {
            return Err(format!(
                "D4: a read ({basis:?}) shows {seen} commands where {floor} were known before"
            ));
        }
        self.history.has_read(Call {
            client: asked.client as u64,
            called: asked.called,
            ended: self.moment() + 1,
            request: Request::Query(asked.query.clone()),
            response: Some(response),
            place: None,
        });
        self.requests.floor = self.requests.floor.max(seen);
        Ok(())
    }
}

/// Does this answer say that the session is gone?
fn is_over(error: &RequestError) -> bool {
    matches!(
        error,
        RequestError::Rejected {
            reason: RejectReason::SessionExpired,
            ..
        } | RequestError::OutcomeUnknown {
            why: UnknownReason::SessionExpired
        }
    )
}
