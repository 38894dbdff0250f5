"""What this rig could not do, in words for the person who ran it."""


class HospitalError(Exception):
    """Something that could not be done; the message reads "cannot DO-THIS: CAUSE", `hint` is one next action."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
