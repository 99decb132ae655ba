"""The attentive probe: a learned query over all tokens."""
