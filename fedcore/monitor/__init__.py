"""Looking after a model that is out: has its world drifted, has it become worse.

Pure judgements over histograms and metrics; who acts on them is elsewhere.
"""
