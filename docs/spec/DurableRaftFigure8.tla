------------------------ MODULE DurableRaftFigure8 ------------------------
(* Figure 8 of the Raft paper needs four terms.  This begins after two of    *)
(* them, which any run can reach: a has led term 1 and kept its entry to     *)
(* itself, c has led term 2 and kept its own, b has voted for both.          *)
EXTENDS DurableRaft
CONSTANTS A, B, C
LogOf(i) == IF i = A THEN <<10>> ELSE IF i = C THEN <<20>> ELSE <<>>
VoteOf(i) == IF i = A THEN Nil ELSE C
InitFigure8 ==
    /\ n = [i \in S |-> [t |-> 2, v |-> VoteOf(i), l |-> LogOf(i), role |-> "F", ver |-> 0, ci |-> 0]]
    /\ d = [i \in S |-> [t |-> 2, v |-> VoteOf(i), l |-> LogOf(i)]]
    /\ q = [i \in S |-> <<>>]
    /\ msgs = {} /\ committed = {} /\ crashes = 0
SpecFigure8 == InitFigure8 /\ [][Next]_vars
============================================================================
