"""`wam <verb>`: the command line. Verbs are small modules; every error of the user's making is one sentence, status 2."""
