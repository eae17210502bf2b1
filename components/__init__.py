"""One folder per stage: a KFP component that calls one stage of adabert_core."""
