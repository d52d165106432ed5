------------------------ MODULE DurableRaftSnapshots ------------------------
(* DurableRaft with snapshots.  A log keeps saying what was ever in it; from *)
(* its start on it is stored entry by entry, before that it is in a file.    *)
(* The start is part of every write, so that it becomes durable with the     *)
(* record; the file becomes durable by itself, in no order with the writes.  *)
(*                                                                           *)
(* A leader that has dropped entries can send the file in their place.  What *)
(* was sent before it dropped them may still come, so nothing is taken away  *)
(* from RecvAE; Receive and Install come beside it.                          *)
(*                                                                           *)
(* After a crash a log whose start lies behind its file is of no use.        *)
EXTENDS DurableRaft

CONSTANTS
  CompactFirst,  \* entries are dropped while the file that holds them is being written
  RecordFirst,   \* a leader's snapshot takes the log's place while its file is being written
  InstallAnyway  \* so does one that is older than what is committed here

VARIABLES
  ds,    \* the start of each durable log
  qs,    \* the start after each write under way
  file,  \* the log that the newest durable snapshot holds
  fw     \* the one whose file is being written, <<>>: none is

svars == <<n, d, q, msgs, committed, crashes, ds, qs, file, fw>>

Start(i) == IF qs[i] = <<>> THEN ds[i] ELSE qs[i][Len(qs[i])]

SInit == Init /\ ds = [i \in S |-> 0] /\ qs = [i \in S |-> <<>>]
              /\ file = [i \in S |-> <<>>] /\ fw = [i \in S |-> <<>>]

\* Each write that a node issues has the log's start; completions take them off.
Follow(i) ==
    LET more == Len(q'[i]) > Len(q[i])
        k == IF more THEN 0 ELSE Len(q[i]) - Len(q'[i])
    IN /\ ds' = IF k > 0 THEN [ds EXCEPT ![i] = qs[i][k]] ELSE ds
       /\ qs' = [qs EXCEPT ![i] = IF more THEN Append(@, Start(i)) ELSE SubSeq(@, k + 1, Len(@))]

Without(i) ==
    /\ \/ Timeout(i) \/ Learn(i) \/ Resign(i) \/ Grant(i) \/ Lead(i) \/ Client(i) \/ RecvAE(i)
       \/ Commit(i) \/ Done(i)
    /\ Follow(i) /\ UNCHANGED <<file, fw>>

\* What is applied (committed, and durable here) is written to a file.
Take(i) ==
    LET k == Min(n[i].ci, Durable(n[i].l, d[i], q[i])) IN
    /\ fw[i] = <<>> /\ k > Len(file[i])
    /\ fw' = [fw EXCEPT ![i] = Prefix(n[i].l, k)]
    /\ UNCHANGED <<vars, ds, qs, file>>

\* A leader's snapshot comes: something that it has committed.
Receive(i) == \E m \in msgs : \E k \in Told(m.t) :
    /\ m.y = "ae" /\ m.f # i /\ m.t >= n[i].t /\ (m.t = n[i].t => n[i].role # "L")
    /\ fw[i] = <<>> /\ k <= Len(m.l) /\ k > Len(file[i])
    /\ fw' = [fw EXCEPT ![i] = Prefix(m.l, k)]
    /\ UNCHANGED <<vars, ds, qs, file>>

\* The file and its name are durable.
Written(i) ==
    /\ fw[i] # <<>>
    /\ file' = [file EXCEPT ![i] = fw[i]]
    /\ fw' = [fw EXCEPT ![i] = <<>>]
    /\ UNCHANGED <<vars, ds, qs>>

\* Node i's state becomes v, and its log begins at s: one write.
Restarts(i, v, s) ==
    /\ n' = [n EXCEPT ![i] = v]
    /\ q' = [q EXCEPT ![i] = Append(@, Rec(v))]
    /\ qs' = [qs EXCEPT ![i] = Append(@, s)]
    /\ msgs' = msgs \cup Promises(i, v, d[i], Append(q[i], Rec(v)))
    /\ committed' = IF v.ci > n[i].ci THEN committed \cup {[l |-> Prefix(v.l, v.ci), t |-> v.t]} ELSE committed
    /\ UNCHANGED <<d, crashes, ds, file, fw>>

\* What a snapshot holds leaves the log.
Compact(i) ==
    LET s == Min(n[i].ci, IF CompactFirst THEN Max(Len(file[i]), Len(fw[i])) ELSE Len(file[i]))
    IN s > Start(i) /\ Restarts(i, n[i], s)

\* A received snapshot: what is committed here stays as it is; a log that holds its end keeps what follows; any
\* other log is replaced.
Install(i) == \E m \in msgs : \E src \in {file[i]} \cup (IF RecordFirst THEN {fw[i]} ELSE {}) :
    LET k == Len(src)
        ver == IF m.t > n[i].t THEN 0 ELSE n[i].ver
        l2 == IF ~InstallAnyway /\ Agree(src, n[i].l) = k THEN n[i].l ELSE src
        v2 == [n[i] EXCEPT !.t = m.t, !.v = IF m.t > n[i].t THEN Nil ELSE @, !.l = l2, !.role = "F",
                           !.ver = Max(k, ver), !.ci = Max(@, k)]
    IN /\ m.y = "ae" /\ m.f # i /\ m.t >= n[i].t /\ (m.t = n[i].t => n[i].role # "L")
       /\ k > 0 /\ k \in Told(m.t) /\ k <= Len(m.l) /\ Prefix(m.l, k) = src
       /\ IF InstallAnyway THEN v2 # n[i] ELSE k > n[i].ci
       /\ Restarts(i, v2, k)

\* Power is lost and comes back: what the start leaves out is taken from the file, if it is there.
Fail(i) ==
    LET whole == ds[i] <= Len(file[i])
        l == IF whole THEN d[i].l ELSE <<>>
        v == [t |-> d[i].t, v |-> d[i].v, l |-> l, role |-> "F", ver |-> 0, ci |-> IF whole THEN ds[i] ELSE 0]
        dur == [d[i] EXCEPT !.l = l]
    IN /\ crashes < MaxCrash
       /\ crashes' = crashes + 1
       /\ n' = [n EXCEPT ![i] = v]
       /\ d' = [d EXCEPT ![i] = dur]
       /\ q' = [q EXCEPT ![i] = <<>>]
       /\ ds' = [ds EXCEPT ![i] = IF whole THEN @ ELSE 0]
       /\ qs' = [qs EXCEPT ![i] = <<>>]
       /\ fw' = [fw EXCEPT ![i] = <<>>]
       /\ msgs' = msgs \cup Promises(i, v, dur, <<>>)
       /\ UNCHANGED <<committed, file>>

SNext == \E i \in S :
    Without(i) \/ Take(i) \/ Receive(i) \/ Written(i) \/ Compact(i) \/ Install(i) \/ Fail(i)
SSpec == SInit /\ [][SNext]_svars

----------------------------------------------------------------------------
\* What a durable log does not hold entry by entry is in a durable file.
SnapshotThere == \A i \in S :
    /\ ds[i] <= Len(file[i]) /\ ds[i] <= Len(d[i].l)
    /\ Prefix(d[i].l, ds[i]) = Prefix(file[i], ds[i])
\* Snapshots hold what is committed, and nothing else.
SnapshotCommitted == \A i \in S : \A f \in {file[i], fw[i]} :
    f = <<>> \/ \E c \in committed : Common(c.l, f) = Len(f)
\* What was dropped is known to be committed.
StartCommitted == \A i \in S : Start(i) <= n[i].ci
============================================================================
