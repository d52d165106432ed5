---------------------------- MODULE DurableRaft ----------------------------
(* Raft on disks that are slow and forgetful.                                *)
(*                                                                           *)
(* A node has volatile state and a durable one.  Every change is issued as a *)
(* write; writes become durable later, in order; a crash keeps what was      *)
(* reported durable and any prefix of the writes that were still under way.  *)
(*                                                                           *)
(* What a node may promise is derived from its state, not queued: after each *)
(* of its actions it has said everything that it may say (Promises).  The    *)
(* set of messages only grows, so a message may come late, twice or never.   *)
(* Votes and acknowledgements are counted where they are used, from that     *)
(* set: receiving one changes nothing by itself.                             *)
(*                                                                           *)
(* An entry of the log stands for one batch: 10 * term + payload, payload 0  *)
(* for the entry with which a leader begins its term.  The protocol compares *)
(* terms; the invariants compare payloads too.                               *)
(*                                                                           *)
(* Each switch below is an optimisation that is forbidden, or a check that   *)
(* is left out.  With all of them off the invariants hold.                   *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
  S, Nil,
  MaxTerm, MaxLen, MaxCrash,
  Stand,         \* the nodes that campaign (all, but for a scope that would be too large)
  Coarse,        \* also actions that are several of the others at once, with less said between: see below
  EarlyVote,     \* a granted vote leaves before it is durable
  EarlyAck,      \* an acknowledgement leaves before the entries are durable
  DupAckEarly,   \* what brings nothing new is acknowledged at once, though the entries are still being written
  LeaderEarly,   \* a leader counts its own copy before it is durable
  LeaderRestore, \* a restarted leader goes on leading its term
  EarlyRV,       \* RequestVote leaves before term and vote are durable
  SelfVoteEarly, \* a candidate counts its own vote before it is durable (harmless where another vote is needed)
  AckFromTail,   \* an acknowledgement names the end of the log, not what was compared with the leader's
  CommitOldTerm, \* an entry of an older term is committed by counting its copies
  Reorder,       \* the second write's completion counts while the first is under way
  CommitUnverified, \* a heartbeat's commit index is believed for entries that were not compared with the leader's
  CutAnyway,     \* an append, or a snapshot, cuts whatever follows it, also where nothing contradicts it (rules 2 and 21)
  LostVote,      \* a disk loses its vote in a crash, and the node takes part as if it had not (the hole behind rule 14)
  LostSuffix     \* a disk loses the end of its log, and the node votes and counts as if it had not (behind rule 15)

VARIABLES
  n,         \* the volatile part of each node: term, vote, log, role, ver (compared with this term's leader), ci (commit)
  d,         \* what is durable of term, vote and log
  q,         \* writes issued and not durable: term, vote and log after each
  msgs,      \* everything ever said
  committed, \* history: every log prefix that any node has called committed, and in which term
  crashes

vars == <<n, d, q, msgs, committed, crashes>>

Quorums == {Q \in SUBSET S : 2 * Cardinality(Q) > Cardinality(S)}
\* Do these nodes decide, as log l has it?  (DurableRaftJoint puts memberships into logs.)
IsQuorum(X, l) == X \in Quorums
T(e) == e \div 10
LastTerm(l) == IF l = <<>> THEN 0 ELSE T(l[Len(l)])
Prefix(l, k) == SubSeq(l, 1, k)
Min(a, b) == IF a < b THEN a ELSE b
Max(a, b) == IF a > b THEN a ELSE b

\* How far two logs are the same.
Common(a, b) == CHOOSE k \in 0..Min(Len(a), Len(b)) :
    /\ Prefix(a, k) = Prefix(b, k)
    /\ k = Min(Len(a), Len(b)) \/ a[k + 1] # b[k + 1]

\* How far two logs have the same terms.
Agree(a, b) == CHOOSE k \in 0..Min(Len(a), Len(b)) :
    /\ \A x \in 1..k : T(a[x]) = T(b[x])
    /\ k = Min(Len(a), Len(b)) \/ T(a[k + 1]) # T(b[k + 1])

\* A leader's entries a, taken over into log b: what is the same stays, what contradicts is cut.
Merge(a, b) ==
    IF Agree(a, b) = Len(a) THEN IF CutAnyway THEN a ELSE b
    ELSE Prefix(b, Agree(a, b)) \o SubSeq(a, Agree(a, b) + 1, Len(a))

UpToDate(m, l) == m.lt > LastTerm(l) \/ (m.lt = LastTerm(l) /\ m.ln >= Len(l))

\* How much of log l survives any crash from now on: whatever prefix of the writes gets done.
RECURSIVE LeastOver(_, _, _)
LeastOver(l, w, k) == IF k = 0 THEN Len(l) ELSE Min(Common(l, w[k].l), LeastOver(l, w, k - 1))
Durable(l, dur, w) == Min(Common(l, dur.l), LeastOver(l, w, Len(w)))

\* Everything node i may say in state v, with dur durable and w under way.
Promises(i, v, dur, w) ==
    LET voted(t, c) == IF c = Nil THEN {} ELSE {[y |-> "v", t |-> t, f |-> i, d |-> c]}
        asks == v.role = "C" /\ (EarlyRV \/ (dur.t = v.t /\ dur.v = i))
        held == IF AckFromTail THEN Durable(v.l, dur, w)
                ELSE IF EarlyAck THEN v.ver
                ELSE Min(v.ver, Durable(v.l, dur, w))
    IN voted(dur.t, dur.v)
       \cup (IF EarlyVote /\ v.v # i THEN voted(v.t, v.v) ELSE {})
       \cup (IF SelfVoteEarly /\ v.v = i THEN voted(v.t, i) ELSE {})
       \cup (IF asks THEN {[y |-> "rv", t |-> v.t, f |-> i, lt |-> LastTerm(v.l), ln |-> Len(v.l)]} ELSE {})
       \cup (IF v.role = "L"
THEN {[y |-> "ae", t |-> v.t, f |-> i, l |-> v.l]} ELSE {})
       \cup (IF v.role = "F" /\ v.ver > 0 /\ held > 0 /\ (EarlyAck \/ dur.t = v.t)
             THEN {[y |-> "a", t |-> v.t, f |-> i, n |-> held]} ELSE {})

Rec(v) == [t |-> v.t, v |-> v.v, l |-> v.l]

Init ==
    /\ n = [i \in S |-> [t |-> 0, v |-> Nil, l |-> <<>>, role |-> "F", ver |-> 0, ci |-> 0]]
    /\ d = [i \in S |-> [t |-> 0, v |-> Nil, l |-> <<>>]]
    /\ q = [i \in S |-> <<>>]
    /\ msgs = {} /\ committed = {} /\ crashes = 0

\* Node i's state becomes v; what of it the disk must learn is issued as one write; what i may say now is said.
Becomes(i, v, said) ==
    LET w == IF Rec(v) = Rec(n[i]) THEN q[i] ELSE Append(q[i], Rec(v))
    IN /\ n' = [n EXCEPT ![i] = v]
       /\ q' = [q EXCEPT ![i] = w]
       /\ msgs' = msgs \cup said \cup Promises(i, v, d[i], w)
       /\ committed' = IF v.ci > n[i].ci \/ (v.role # n[i].role /\ v.role = "L" /\ v.ci > 0)
                       THEN committed \cup {[l |-> Prefix(v.l, v.ci), t |-> v.t]} ELSE committed

\* Nobody has been heard for too long, or the leader has asked for it.
Timeout(i) ==
    /\ i \in Stand /\ n[i].role # "L" /\ n[i].t < MaxTerm
    /\ d[i].t = n[i].t /\ d[i].v = n[i].v   \* the last campaign or vote is not on its way to the disk any more
    /\ Becomes(i, [n[i] EXCEPT !.t = @ + 1, !.v = i, !.role = "C", !.ver = 0], {})
    /\ UNCHANGED <<d, crashes>>

\* A later term, which somebody has durable, is heard of.
Learn(i) == \E t \in 1..MaxTerm :
    /\ t > n[i].t /\ \E j \in S : d[j].t >= t
    /\ Becomes(i, [n[i] EXCEPT !.t = t, !.v = Nil, !.role = "F", !.ver = 0], {})
    /\ UNCHANGED <<d, crashes>>

\* A campaign is lost, or a leader gives up.
Resign(i) ==
    /\ Coarse /\ n[i].role # "F"
    /\ Becomes(i, [n[i] EXCEPT !.role = "F", !.ver = 0], {})
    /\ UNCHANGED <<d, crashes>>

\* A vote is given.  The asker hears of it when it is durable.
Grant(i) == \E m \in msgs :
    /\ m.y = "rv" /\ m.f # i /\ m.t >= n[i].t
    /\ m.t > n[i].t \/ (n[i].role = "F" /\ n[i].v = Nil)
    /\ UpToDate(m, n[i].l)
    /\ Becomes(i, [n[i] EXCEPT !.t = m.t, !.v = m.f, !.role = "F", !.ver = IF m.t > n[i].t THEN 0 ELSE @], {})
    /\ UNCHANGED <<d, crashes>>

\* A quorum has voted: the term begins with an entry of its own.  (No scope but the unbounded one is free of
\* leaders that find no room for it; they commit nothing.)
Lead(i) ==
    /\ n[i].role = "C"
    /\ IsQuorum({m.f : m \in {x \in msgs : x.y = "v" /\ x.t = n[i].t /\ x.d = i}}, n[i].l)
    /\ Becomes(i, [n[i] EXCEPT !.role = "L", !.l = IF Len(@) < MaxLen THEN Append(@, 10 * n[i].t) ELSE @], {})
    /\ UNCHANGED <<d, crashes>>

\* A leader takes another entry.
Client(i) ==
    /\ n[i].role = "L" /\ Len(n[i].l) < MaxLen
    /\ Becomes(i, [n[i] EXCEPT !.l = Append(@, 10 * n[i].t + 1 + crashes)], {})
    /\ UNCHANGED <<d, crashes>>

\* Commit indices that can be heard of in term t: its leader tells what it has committed, and what it knew before.
Told(t) == {Len(c.l) : c \in {x \in committed : x.t = t}}

\* Entries of a leader, as many of them as came.  None at all is a mere sign of life.
RecvAE(i) == \E m \in msgs : /\ m.y = "ae" /\ m.f # i /\ m.t >= n[i].t /\ (m.t = n[i].t => n[i].role # "L")
    /\ \E k \in 0..Len(m.l), c \in {0} \cup Told(m.t) :
       LET l2 == Merge(Prefix(m.l, k), n[i].l)
           ver == IF m.t > n[i].t THEN 0 ELSE n[i].ver
           ver2 == Max(k, ver)
           v2 == [n[i] EXCEPT !.t = m.t, !.v = IF m.t > n[i].t THEN Nil ELSE @, !.l = l2, !.role = "F",
                              !.ver = ver2, !.ci = Max(@, Min(c, IF CommitUnverified THEN Len(l2) ELSE ver2))]
           early == IF DupAckEarly /\ l2 = n[i].l /\ k > 0
                    THEN {[y |-> "a", t |-> m.t, f |-> i, n |-> k]} ELSE {}
       IN /\ v2 # n[i]
          /\ Coarse \/ k <= ver + 1
          /\ Becomes(i, v2, early)
    /\ UNCHANGED <<d, crashes>>

\* What a quorum holds durably is committed, from the first entry of the leader's own term on.
Counted(i, v, dur, w, said) ==
    {k \in (v.ci + 1)..Len(v.l) :
        /\ CommitOldTerm \/ T(v.l[k]) = v.t
        /\ IsQuorum({m.f : m \in {x \in said : x.y = "a" /\ x.t = v.t /\ x.n >= k}}
                    \cup (IF LeaderEarly \/ Durable(v.l, dur, w) >= k THEN {i} ELSE {}), v.l)}
Least(K) == IF Coarse THEN K ELSE {k \in K : \A x \in K : k <= x}
Commit(i) ==
    /\ n[i].role = "L"
    /\ \E k \in Least(Counted(i, n[i], d[i], q[i], msgs)) : Becomes(i, [n[i] EXCEPT !.ci = k], {})
    /\ UNCHANGED <<d, crashes>>

\* The first k writes are reported durable; a leader may count its own copy at once.
Done(i) == \E k \in 1..(IF Coarse THEN Len(q[i]) ELSE Min(1, Len(q[i]))) :
    LET dur == q[i][k]
        w == SubSeq(q[i], k + 1, Len(q[i]))
        more == IF Coarse /\ n[i].role = "L" THEN Counted(i, n[i], dur, w, msgs) ELSE {}
    IN /\ d' = [d EXCEPT ![i] = dur]
       /\ q' = [q EXCEPT ![i] = w]
       /\ \E c \in {n[i].ci} \cup more :
            LET v == [n[i] EXCEPT !.ci = c] IN
            /\ n' = [n EXCEPT ![i] = v]
            /\ msgs' = msgs \cup Promises(i, v, dur, w)
            /\ committed' = IF c > n[i].ci THEN committed \cup {[l |-> Prefix(v.l, c), t |-> v.t]} ELSE committed
       /\ UNCHANGED crashes

\* The faulty pipeline: the second write's completion counts though the first is not durable.
DoneOut(i) ==
    /\ Reorder /\ Len(q[i]) >= 2
    /\ msgs' = msgs \cup Promises(i, n[i], q[i][2], SubSeq(q[i], 3, Len(q[i])))
    /\ UNCHANGED <<n, d, q, committed, crashes>>

\* Power is lost and comes back.  The first k of the writes under way have reached the disk.  What was applied, or
\* stands in a snapshot, is known to be committed: c.
Crash(i) == \E k \in 0..(IF Coarse THEN Len(q[i]) ELSE 0) :
  LET kept == IF k = 0 THEN d[i].l ELSE q[i][k].l IN
  \E c \in 0..(IF Coarse THEN Min(n[i].ci, Common(n[i].l, kept)) ELSE 0) :
    LET disk == IF k = 0 THEN d[i] ELSE q[i][k]
        dur == [t |-> disk.t, v |-> IF LostVote THEN Nil ELSE disk.v,
                l |-> IF LostSuffix /\ disk.l # <<>> THEN Prefix(disk.l, Len(disk.l) - 1) ELSE disk.l]
        again == LeaderRestore /\ n[i].role = "L" /\ dur.t = n[i].t /\ dur.v = i
        v == [t |-> dur.t, v |-> dur.v, l |-> dur.l, role |-> IF again THEN "L" ELSE "F", ver |-> 0, ci |-> c]
    IN /\ crashes < MaxCrash
       /\ crashes' = crashes + 1
       /\ n' = [n EXCEPT ![i] = v]
       /\ d' = [d EXCEPT ![i] = dur]
       /\ q' = [q EXCEPT ![i] = <<>>]
       /\ msgs' = msgs \cup Promises(i, v, dur, <<>>)
       /\ UNCHANGED committed

Next == \E i \in S :
    \/ Timeout(i) \/ Learn(i) \/ Resign(i) \/ Grant(i) \/ Lead(i) \/ Client(i) \/ RecvAE(i)
    \/ Commit(i) \/ Done(i) \/ DoneOut(i) \/ Crash(i)
Spec == Init /\ [][Next]_vars

----------------------------------------------------------------------------
\* One leader per term.
ElectionSafety == \A a, b \in {m \in msgs : m.y = "ae"} : a.t = b.t => a.f = b.f
\* What two nodes call committed is the same as far as both go.
StateMachineSafety == \A a, b \in committed : Common(a.l, b.l) = Min(Len(a.l), Len(b.l))
\* A leader has everything that was committed in earlier terms.
LeaderCompleteness == \A c \in committed : \A i \in S :
    (n[i].role = "L" /\ n[i].t > c.t) => Common(n[i].l, c.l) = Len(c.l)
\* What is committed is durable on a quorum, always.
CommittedDurable == \A c \in committed : IsQuorum({i \in S : Common(d[i].l, c.l) = Len(c.l)}, c.l)
\* Entries of one term at one place are the same, and so is everything before them.
LogMatching == \A i, j \in S : \A k \in 1..Min(Len(n[i].l), Len(n[j].l)) :
    T(n[i].l[k]) = T(n[j].l[k]) => Prefix(n[i].l, k) = Prefix(n[j].l, k)
\* Nobody forgets a vote that was told.
VoteDurable == \A m \in msgs : m.y = "v" => (d[m.f].t > m.t \/ (d[m.f].t = m.t /\ d[m.f].v = m.d))
\* Nobody campaigns in a term that it could forget.
RequestDurable == \A m \in msgs : m.y = "rv" => (d[m.f].t > m.t \/ (d[m.f].t = m.t /\ d[m.f].v = m.f))
\* What was acknowledged to a leader is durable, and it is the leader's, as long as its term lasts.
AckDurable == \A m \in msgs : m.y = "a" =>
    \/ d[m.f].t > m.t
    \/ d[m.f].t = m.t /\ \E x \in msgs : x.y = "ae" /\ x.t = m.t /\ Common(x.l, d[m.f].l) >= m.n
\* What a node calls committed is in its log.
CommitInLog == \A i \in S : n[i].ci <= Len(n[i].l)

Sy == Permutations(S)
============================================================================
