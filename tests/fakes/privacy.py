"""A tenant that keeps everything as it is."""

from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import PATTERN_ENTITIES, PrivacySettings

AS_IT_IS = Scrubber(settings=PrivacySettings(actions=dict.fromkeys(PATTERN_ENTITIES, "keep")), salt=b"salt")
