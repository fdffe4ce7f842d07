"""Who calls, what they may do, and how many events a second: keys, and clients that exchange a secret for a token.

Of secrets only SHA-256 sums are kept. Those that `keys new` makes have 256 bits of randomness, so a slow hash would
protect nothing.
"""

from engine.adapters.api_keys.callers import Grant, Key
from engine.adapters.api_keys.fresh import new_client, new_key
from engine.adapters.api_keys.keys import Keys
from engine.adapters.api_keys.signing_key import SIGNING_KEY_FILE, read_signing_key

__all__ = ["SIGNING_KEY_FILE", "Grant", "Key", "Keys", "new_client", "new_key", "read_signing_key"]
