"""The numbers within which a server answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How much clients may ask of a server, so that they cannot use up its memory or its time.

    Its memory for uploads is `(uploads + jobs) × body_bytes`, whatever arrives.

    Attributes:
        body_bytes: of what is sent with a request.
        uploads: requests that send something, from their first byte to their answer; more are told
            to come back, before anything of them is read.
        jobs: how many of these are worked on together; the others wait.
        head_bytes: of a request's line and headers.
        connections: open at a time.
        head_seconds: for a request's line and headers.
        upload_seconds: for what is sent with it.
        job_seconds: until the answer begins.
        answer_seconds: for the client to take the answer.
        idle_seconds: without a request on an open connection.
        retry_seconds: after which those that were sent away may come back.
    """

    body_bytes: int = 20_000_000
    uploads: int = 3
    jobs: int = 2
    head_bytes: int = 16_384
    connections: int = 256
    head_seconds: float = 10
    upload_seconds: float = 30
    job_seconds: float = 60
    answer_seconds: float = 120
    idle_seconds: float = 5
    retry_seconds: int = 2

    @property
    def request_seconds(self) -> float:
        """From a request's head to the end of its answer."""
        return self.upload_seconds + self.job_seconds + self.answer_seconds
