"""cleanroomctl: one file per verb, each talking to the daemon through the control client only."""
