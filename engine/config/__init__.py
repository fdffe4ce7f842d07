"""The shape of config.toml, its only reader, and the relations between its limits.

`kinds`: what a value may be. `tables`, `alerts`: the keys; `access`: those of callers, with their checks; `mapping`:
the rules of a source's mapping. `checks`, `checks_outward`, `checks_alerts`, `relations`: what must hold between them.
`problems`: how whatever is wrong is found at once and named. `whole`: the configuration, and how it is read.
"""

from engine.config.access import IngressClientConfig as IngressClientConfig
from engine.config.access import IngressKeyConfig as IngressKeyConfig
from engine.config.access import effective as effective
from engine.config.alerts import AlertConfig as AlertConfig
from engine.config.alerts import NotifyConfig as NotifyConfig
from engine.config.checks_outward import TARGET_FIELDS as TARGET_FIELDS
from engine.config.forward import RAINFOCUS as RAINFOCUS
from engine.config.forward import ForwardConfig as ForwardConfig
from engine.config.kinds import NAME as NAME
from engine.config.kinds import Name as Name
from engine.config.kinds import Scope as Scope
from engine.config.kinds import Table as Table
from engine.config.mapping import MappingRule as MappingRule
from engine.config.problems import is_loopback as is_loopback
from engine.config.tables import SANDBOX_SECRET as SANDBOX_SECRET
from engine.config.tables import AccountConfig as AccountConfig
from engine.config.tables import DestinationConfig as DestinationConfig
from engine.config.tables import IngressConfig as IngressConfig
from engine.config.tables import RateConfig as RateConfig
from engine.config.tables import RetryConfig as RetryConfig
from engine.config.tables import SourceConfig as SourceConfig
from engine.config.whole import Config as Config
from engine.config.whole import locate as locate
