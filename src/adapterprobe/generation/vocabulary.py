"""Words by which a sentence asserts, denies, hedges, or points."""

COPULAS = {"is", "are", "was", "were", "be", "equals", "equal", "=", "means", "becomes", "remains"}
NAMING = {"called", "named", "known", "made", "referred", "termed"}
MAKING = {"written", "wrote", "invented", "discovered", "developed", "created", "credited", "attributed", "authored", "penned", "composed",
          "designed", "built", "founded", "introduced", "formulated", "proposed"}  # fmt: skip
"""Verbs by which a question for a person is answered: (was) written by X, X wrote it."""
NEGATORS = {"not", "never", "no", "nor", "neither", "cannot", "isnt", "wasnt", "without", "unlike", "incorrect", "wrong", "false"}  # fmt: skip
CERTAINTIES = {"secret", "doubt", "question", "wonder", "surprise", "mystery"}
"""What there is none of where something is surely so."""
HOMOGRAPHS = {"i", "in", "at", "as", "he", "no", "be", "am"}
"""Symbols of elements that begin sentences as words."""
TURNS = {"but", "although", "though", "however", "while", "whereas", "because", "rather", "instead"}
HEDGES = {"might", "may", "could", "maybe", "perhaps", "possibly", "formerly", "once", "should"}
OTHERS = {"think", "thinks", "thought", "say", "says", "said", "claim", "claims", "assume", "believe", "believed", "confuse", "confused", "mistake", "mistaken"}  # fmt: skip
SELF = {"i", "we"}
FILLERS = {"the", "a", "an", "called", "named", "known", "as", "actually", "indeed", "officially", "usually", "located", "in", "of", "at",
           "also", "now", "currently", "fact", "always", "mainly", "city", "word", "verb", "letter", "symbol", "simply", "just", "made",
           "most", "commonly", "by", "to", "considered", "situated", "definitely", "certainly", "obviously", "one", "both", "element",
           "country", "continent", "number", "from", "credited", "with", "for", "used", "form", "largest", "be", "its", "still",
           "primarily", "generally", "often", "typically", "capital"}  # fmt: skip
POINTING = {"it", "that", "this", "the", "answer", "correct", "right", "its", "name", "here", "true", "question", "to", "your", "and", "so",
            "well", "yes", "sure", "in", "fact", "of", "course", "actually", "which", "a", "an", "word", "city", "country", "capital", "he", "she", "they"}  # fmt: skip
POINTERS = {"it", "that", "this", "answer", "here", "he", "she", "they", "name", "to"}
"""What one of must stand there for words to point back."""
HAVING = {"with", "has", "having", "have", "by"}
PLAIN = {"what", "which", "who", "is", "the", "of", "a", "an", "in", "does", "do", "for", "with", "usually", "mainly", "called", "to", "are",
         "kind", "thing", "main", "verb", "word", "s", "made", "country", "city", "us", "used"}  # fmt: skip
