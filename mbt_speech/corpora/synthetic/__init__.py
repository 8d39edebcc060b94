"""The built-in corpus: who says what, in which voice and room, synthesized by espeak-ng."""
