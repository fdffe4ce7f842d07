"""Permits, attempts and settling: the only place that sends, and the only one that retries.

account.py    one arbiter an account: who may send the next request, and when
consumer.py   one destination: what it has read, merged, leased; what became of it
attempts.py   one request: lease, look up, judge, send, conclude
books.py      what has to be written down of it, and the sums that must come out even
"""

from engine.dispatcher.account import Account
from engine.dispatcher.consumer import Consumer

__all__ = ["Account", "Consumer"]
