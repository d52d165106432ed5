------------------------ MODULE DurableRaftJoint ------------------------
(* Membership: an entry with payload 5 begins a joint membership, one with   *)
(* payload 6 ends it.  The last one of a log counts, committed or not.  The  *)
(* cfg file puts JointQuorum and JointClient in the places of IsQuorum and   *)
(* Client.                                                                   *)
EXTENDS DurableRaft
CONSTANTS
  Old, New,
  NoJoint,          \* the new membership takes effect at once
  ChangeBeforeTerm, \* a leader changes the membership before it has committed an entry of its own term
  ChangesOverlap    \* the new membership follows before the joint one is committed
Payload(e) == e % 10
Changes(l) == {k \in 1..Len(l) : Payload(l[k]) \in {5, 6}}
Latest(l) == IF Changes(l) = {} THEN 0 ELSE CHOOSE k \in Changes(l) : \A x \in Changes(l) : x <= k
Phase(l) == IF Latest(l) = 0 THEN 4 ELSE Payload(l[Latest(l)])
Majority(X, V) == 2 * Cardinality(X \cap V) > Cardinality(V)
JointQuorum(X, l) ==
    /\ Phase(l) \in {4, 5} => Majority(X, Old)
    /\ Phase(l) \in {5, 6} => Majority(X, New)
JointClient(i) ==
    LET l == n[i].l
        begun == ChangeBeforeTerm \/ (n[i].ci > 0 /\ T(l[n[i].ci]) = n[i].t)
        next == IF Phase(l) = 4 /\ ~NoJoint THEN 5 ELSE 6
    IN /\ n[i].role = "L" /\ Len(l) < MaxLen /\ Phase(l) # 6 /\ begun
       /\ ChangesOverlap \/ n[i].ci >= Latest(l)
       /\ Becomes(i, [n[i] EXCEPT !.l = Append(@, 10 * n[i].t + next)], {})
       /\ UNCHANGED <<d, crashes>>
============================================================================
