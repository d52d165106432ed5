//! Clients: what they ask for, and what they make of the answers.
//!
//! A plain command is sent once. A client with a session sends one numbered command after the other,
//! each again, to whomever, until it knows the outcome. A read must show everything that anybody was
//! told before it was asked: commands by their acknowledgement, states by an earlier read.

use super::{Sim, Step};
use crate::config::SimConfig;
use crate::recorder::{Recorder, place_in};
use bytes::Bytes;
use duraft::{
    Admin, DriverInput, Outcome, Proposal, ReadDone, ReadJob, ReadRequest, RejectReason,
    RequestError, Responder, SessionCommand, SessionId, SessionLimits, UnknownReason,
};
use duraft_core::{NodeId, ReadBasis, RoleKind};
use std::collections::BTreeMap;

/// What a client was told.
#[derive(Debug)]
pub(super) enum Told {
    /// How a command ended, and whose it is, if it was sent in a session.
    Command {
        number: u64,
        client: Option<usize>,
        outcome: Outcome,
    },
    /// A session was asked for.
    Session { client: usize, outcome: Outcome },
    /// How many commands a read saw, of which it had to see `floor`.
    Read {
        floor: u64,
        basis: ReadBasis,
        outcome: Result<u64, RequestError>,
    },
    /// Leadership was to move.
    Handover(Result<(), RequestError>),
    /// The membership was to change.
    Change(Outcome),
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
        if self.chance(clients.propose) {
            let host = self.likely_leader();
            let burst = 1 + self.rng.below(4);
            for _ in 0..burst {
                self.propose(host);
            }
        }
        for client in 0..self.clients.len() {
            if self.chance(clients.propose.max(1_000)) {
                let host = self.likely_leader();
                self.session_turn(client, host);
            }
        }
        if self.chance(clients.read) {
            let host = self.some_leader();
            self.read(host);
        }
        if self.chance(clients.handover) {
            let host = self.likely_leader();
            self.hand_over(host);
        }
        if self.chance(clients.change) {
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
            Some((_, leader)) if self.rng.below(8) > 0 => *leader,
            _ => anyone,
        }
    }

    /// Whoever believes to lead, also one whose time is over, or anybody.
    fn some_leader(&mut self) -> usize {
        let leaders: Vec<usize> = self.leaders().into_values().collect();
        let anyone = self.any_host();
        let at = usize::try_from(self.rng.below(leaders.len() as u64 + 1)).expect("few nodes");
        leaders.get(at).copied().unwrap_or(anyone)
    }

    pub(super) fn any_host(&mut self) -> usize {
        usize::try_from(self.rng.below(self.hosts.len() as u64)).expect("few nodes")
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

    fn command(&mut self) -> (u64, Bytes) {
        let number = self.history.submitted;
        self.history.submitted += 1;
        let max = self.config.clients.command_bytes_max;
        let len = 8 + usize::try_from(self.rng.below(max + 1)).expect("commands are small");
        let mut command = vec![0; len];
        command[..8].copy_from_slice(&number.to_le_bytes());
        (number, Bytes::from(command))
    }

    pub(super) fn deadline(&mut self, host: usize) -> Option<u64> {
        let patience = self.between(5, 200);
        Some(self.hosts[host].clock(self.now) / SimConfig::TICK + patience)
    }

    pub(super) fn propose(&mut self, host: usize) {
        if self.hosts[host].life.is_none() {
            return;
        }
        let (number, command) = self.command();
        self.history.sent(number);
        let answers = self.answers.clone();
        let responder = Responder::call(move |outcome| {
            let client = None;
            answers.lock().push(Told::Command {
                number,
                client,
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
                self.command()
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
            let client = Some(client);
            answers.lock().push(Told::Command {
                number,
                client,
                outcome,
            });
        });
        let proposal = Proposal::numbered(command, deadline, responder);
        self.input(host, DriverInput::Propose(proposal));
    }

    fn read(&mut self, host: usize) {
        if self.hosts[host].life.is_none() {
            return;
        }
        let basis = if self.rng.below(2) == 0 {
            ReadBasis::Quorum
        } else {
            ReadBasis::Lease
        };
        self.requests.made += 1;
        let (floor, answers) = (self.requests.floor, self.answers.clone());
        let responder = Responder::call(move |outcome| {
            answers.lock().push(Told::Read {
                floor,
                basis,
                outcome,
            });
        });
        let request = ReadRequest {
            basis,
            deadline: self.deadline(host),
            job: ReadJob::new(Recorder::len, responder),
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
        let kind = self.rng.below(8);
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
                    client,
                    outcome,
                } => self.command_ended(number, client, outcome)?,
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
                Told::Read {
                    floor,
                    basis,
                    outcome,
                } => self.read_ended(floor, basis, outcome)?,
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

    fn command_ended(&mut self, number: u64, client: Option<usize>, outcome: Outcome) -> Step {
        if let Ok(applied) = &outcome {
            self.check_applied(applied, || format!("command {number}"))?;
            let place = place_in(&applied.response);
            let place = place.ok_or_else(|| format!("D1: command {number} has no answer"))?;
            self.requests.floor = self.requests.floor.max(place + 1);
        }
        self.report
            .fold(&[self.now, number, u64::from(outcome.is_ok())]);
        if let Some(client) = client.and_then(|client| self.clients.get_mut(client)) {
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
        self.history.answered(number, outcome)
    }

    /// D4, D5: a read shows whatever anybody knew before it was asked.
    fn read_ended(
        &mut self,
        floor: u64,
        basis: ReadBasis,
        outcome: Result<u64, RequestError>,
    ) -> Step {
        self.requests.told += 1;
        let Ok(seen) = outcome else {
            self.report.reads_failed += 1;
            return Ok(());
        };
        self.report.promises += 1;
        match basis {
            ReadBasis::Quorum => self.report.reads += 1,
            ReadBasis::Lease => self.report.lease_reads += 1,
        }
        if seen < floor {
            return Err(format!(
                "D4: a read ({basis:?}) shows {seen} commands where {floor} were known before"
            ));
        }
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
