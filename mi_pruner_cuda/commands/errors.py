"""A mistake of the user's, in contrast to one of ours."""


class UserError(Exception):
    """Told in one line on stderr, without a traceback."""

    def __init__(self, message: object):
        super().__init__(" ".join(str(message).split()))
