"""How `lite`, the embedded model, is made: data, trainer and evaluator."""
