"""params.yaml -> a frozen `Config`; below this room nobody reads a file, a variable or a dict.

One file serves the command line, DVC and Airflow. A preset (``params/NAME.yaml``) is laid over
it key by key, then dotted overrides (``local.lr=0.05``). A key that is not known, or a value
that is not allowed, is refused with its path.
"""

from fedcore.config.asynchrony import AsynchronyConfig
from fedcore.config.evaluate import EvaluateConfig
from fedcore.config.load import config_from, config_tree, load_config, presets
from fedcore.config.local import LocalConfig
from fedcore.config.oort import OortConfig
from fedcore.config.personal import PersonalConfig
from fedcore.config.privacy import PrivacyConfig
from fedcore.config.sections import (
    ChecksConfig,
    CohortConfig,
    CombineConfig,
    Config,
    DataConfig,
    EdgeConfig,
    Gate,
    ModelConfig,
    MonitorConfig,
    PartitionConfig,
    PromotionConfig,
    RunConfig,
    ServerConfig,
    StoreConfig,
    TrackingConfig,
)
from fedcore.config.time import AvailabilityConfig, BatteryConfig, DeviceClass, TimeConfig

__all__ = [
    "AsynchronyConfig",
    "AvailabilityConfig",
    "BatteryConfig",
    "ChecksConfig",
    "CohortConfig",
    "CombineConfig",
    "Config",
    "DataConfig",
    "DeviceClass",
    "EdgeConfig",
    "EvaluateConfig",
    "Gate",
    "LocalConfig",
    "ModelConfig",
    "MonitorConfig",
    "OortConfig",
    "PartitionConfig",
    "PersonalConfig",
    "PrivacyConfig",
    "PromotionConfig",
    "RunConfig",
    "ServerConfig",
    "StoreConfig",
    "TimeConfig",
    "TrackingConfig",
    "config_from",
    "config_tree",
    "load_config",
    "presets",
]
