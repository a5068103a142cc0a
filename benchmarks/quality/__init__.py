"""How good the models are that ``intentctl train`` makes: trained again with several seeds, and measured."""
