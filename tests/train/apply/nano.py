"""GLAV_PLUGINS=tests.train.apply.nano: `--preset nano` in processes of their own."""

from tests.train.evaluation.conftest import NANO
from train.methods.glcm_config import PRESETS

PRESETS["nano"] = NANO
