"""Where speech comes from: the built-in synthetic corpus, and the layouts of public sets."""
