# azpool: `make demo` shows it, `make test` tests it; both set up what they need first.
# Set-up is stamped: the second time they start at once.

PYTHON ?= python3
PY := .venv/bin/python
STAMPS := .venv/stamps
SETUP := pyproject.toml scripts/set_up.py $(wildcard constraints/*.txt) \
	$(wildcard tools/*/*.json)
# Options for pytest, as in `make test ARGS="-x tests/unit"`.
ARGS ?=

.PHONY: demo test test-default lint typecheck bench clean help

help: ## say what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(STAMPS)/demo ## move 2,000 files through the pool against Azurite, and show it
	@$(PY) scripts/demo.py

test: $(STAMPS)/test $(STAMPS)/other ## run the whole suite, on every Python from 3.11 to 3.13
	@scripts/test_all $(ARGS)

test-default: $(STAMPS)/test ## run the suite on the default Python only
	@$(PY) -m pytest $(ARGS)

lint: $(STAMPS)/test ## run the linters, the type checkers and the layers' contract
	@scripts/lint

bench: $(STAMPS)/bench ## run every benchmark beside its peers
	@for bench in benchmarks/[a-z]*.py; do $(PY) $$bench || exit 1; done

clean: ## remove what make set up and what tools left behind
	rm -rf .venv .venv-3.* .tools .mypy_cache .pytest_cache .ruff_cache .import_linter_cache \
		.hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

# A set-up that installs more is also every smaller one.
$(STAMPS)/demo: $(SETUP)
	@$(PYTHON) scripts/set_up.py demo
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/test: $(SETUP)
	@$(PYTHON) scripts/set_up.py test
	@mkdir -p $(STAMPS) && touch $@ $(STAMPS)/demo

$(STAMPS)/bench: $(SETUP)
	@$(PYTHON) scripts/set_up.py bench
	@mkdir -p $(STAMPS) && touch $@ $(STAMPS)/test $(STAMPS)/demo

$(STAMPS)/other: $(SETUP) | $(STAMPS)/test
	@$(PYTHON) scripts/set_up.py other
	@touch $@
