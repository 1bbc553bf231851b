# Two commands from a fresh clone: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
ON ?= /usr/bin/python3
VENV := .venv/bin
SDK := clients/typescript
EXAMPLE := examples/email_draft
SHELL := /bin/bash
export PYTHONPATH := $(CURDIR):$(CURDIR)/layers/rlaas/python:$(CURDIR)/clients/python/src
export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-cloud up down status demo example test test-slow test-python test-package test-typescript test-node lint lint-typescript synth fuzz bench bench-gateway bench-telemetry bench-cost bench-defaults bench-budgets bench-pii bench-guardrails bench-grammars bench-experiments bench-decisions bench-mirroring bench-fairness bench-repetition bench-front-doors bench-laptop bench-clients bench-demo clients lock lock-clients clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: ## Install everything under .venv and .rlaas (skips what is there)
	@$(PYTHON) -m local.setup

clients: setup ## Install the clients of others that tests/clients runs, each in an environment of its own; two minutes
	@$(PYTHON) -m local.setup --clients

setup-cloud:
	@$(PYTHON) -m local.setup --for-cloud

up: setup-cloud ## Start the laptop cloud; prints the API's URL, a tenant and its key
	@$(VENV)/python -m local up

down: ## Stop the laptop cloud
	@if [ -x $(VENV)/python ]; then $(VENV)/python -m local down; else echo "the laptop cloud was never set up"; fi

status: setup ## What of the laptop cloud runs
	@$(VENV)/python -m local status

demo: setup-cloud ## Watch a model learn from edits, be shipped by canary, and be rolled back
	@$(VENV)/python -m local.demo

example: up $(EXAMPLE)/dist/app.js ## An inbox in the browser whose replies RLaaS drafts, on the laptop cloud
	@$(VENV)/python $(EXAMPLE)/server.py --cloud .rlaas/run/cloud.json

test: setup lint test-typescript ## Every check
	$(VENV)/pytest -n 2

test-slow: setup ## The proofs that take long: kills, chaos, a fuzz of every operation, mirrored requests, other people's clients
	$(VENV)/pytest -n 2 -m slow

test-python: setup ## Unit and contract tests on another Python: make test-python ON=/usr/bin/python3
	@$(PYTHON) -m local.setup --other-python "$(ON)"
	.rlaas/venvs/other/bin/python -m pytest -n 2 tests/unit tests/contract

test-package: ## The Python SDK as it is published: its wheel and sdist are built, their metadata and contents checked
	$(PYTHON) -m venv .rlaas/venvs/package
	.rlaas/venvs/package/bin/pip install --quiet build==1.6.1 twine==7.0.0 check-wheel-contents==0.6.3
	rm -rf .rlaas/package
	.rlaas/venvs/package/bin/python -m build --outdir .rlaas/package clients/python
	.rlaas/venvs/package/bin/twine check --strict .rlaas/package/*
	.rlaas/venvs/package/bin/check-wheel-contents .rlaas/package/*.whl

test-typescript: $(SDK)/node_modules/.package-lock.json
	cd $(SDK) && npm test --silent

test-node: $(SDK)/node_modules/.package-lock.json ## The TypeScript SDK's tests on Node 22, which comes from npm's registry
	npm install --silent --no-audit --no-fund --no-save --prefix .rlaas/node-22 node@22
	cd $(SDK) && PATH="$(CURDIR)/.rlaas/node-22/node_modules/node/bin:$$PATH" npm test --silent

lint: setup lint-typescript ## ruff, mypy --strict, import-linter, deptry, hadolint; eslint, prettier, tsc
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports --no-cache
	$(VENV)/deptry .
	$(VENV)/hadolint containers/*/Dockerfile

lint-typescript: $(SDK)/dist/esm/index.js $(EXAMPLE)/node_modules/.package-lock.json
	cd $(SDK) && npm run lint --silent
	cd $(EXAMPLE) && npm run lint --silent

# npm writes this file when it is done, so a repeat finds it newer than the lock file and does nothing.
%/node_modules/.package-lock.json: %/package-lock.json
	cd $* && npm ci --no-audit --no-fund --loglevel=error && touch node_modules/.package-lock.json

$(SDK)/dist/esm/index.js: $(SDK)/node_modules/.package-lock.json $(wildcard $(SDK)/src/* $(SDK)/scripts/build.mjs $(SDK)/tsconfig*.json)
	cd $(SDK) && npm run build --silent

$(EXAMPLE)/dist/app.js: $(SDK)/dist/esm/index.js $(EXAMPLE)/node_modules/.package-lock.json $(wildcard $(EXAMPLE)/web/* $(EXAMPLE)/build.mjs)
	cd $(EXAMPLE) && npm run build --silent

synth: setup ## Synthesize every stage, offline and without credentials
	$(VENV)/python app.py && ls cdk.out

fuzz: setup ## Every operation of the API with thousands of requests, against a laptop cloud of its own; about ten minutes
	FUZZ_PHASES=examples,coverage,fuzzing,stateful FUZZ_EXAMPLES=100 $(VENV)/pytest tests/e2e/test_telemetry.py -m slow -k document

bench: bench-gateway bench-telemetry bench-pii bench-guardrails ## Measure the budgets; results under benchmarks/results

bench-gateway: setup ## The gateway's own work, decision, import; its CPU beside peers'; all beside another revision: BASE=<revision>
	$(VENV)/python -m benchmarks.gateway $(BASE)

bench-telemetry: setup ## Events per second, cost to the host, price of a million events, and chaos, on a laptop cloud of its own; 20 minutes
	$(VENV)/python -m benchmarks.telemetry

bench-cost: setup ## What a stage costs idle, from its templates, and what a million events and inferences cost; a minute
	$(VENV)/python -m benchmarks.cost

bench-defaults: setup ## What traffic the limits bear that a stage sets by itself, from 200 requests a day to ten million; a minute
	$(VENV)/python -m benchmarks.defaults

bench-budgets: setup ## How many requests a second a tenant with budgets may send, by DynamoDB's limits; two minutes
	$(VENV)/python -m benchmarks.budgets

bench-pii: setup ## Recall, precision and speed of finding personal data, beside stock Presidio; about five minutes
	OMP_NUM_THREADS=1 $(VENV)/python -m benchmarks.pii

bench-guardrails: setup ## Injections found on labelled prompts, and what each guardrail costs
	$(VENV)/python -m benchmarks.guardrails

bench-grammars: setup-cloud ## How long schemas as large as the shared endpoint takes hold it up; a minute
	$(VENV)/python -m local.base_model --out .rlaas/models/smollm2-135m-instruct
	OMP_NUM_THREADS=1 .rlaas/venvs/serving/bin/python -m benchmarks.grammars .rlaas/models/smollm2-135m-instruct

bench-experiments: setup ## Ten million decisions checked, and the bandit's regret beside others'; about ten minutes
	$(VENV)/python -m benchmarks.experiments

bench-decisions: setup ## How often rollouts and guards decide wrongly, how soon they see harm, what a look costs; about twenty minutes
	OMP_NUM_THREADS=1 $(VENV)/python -m benchmarks.decisions

bench-repetition: setup ## How far one person who repeats himself moves what is counted; about two minutes
	OMP_NUM_THREADS=1 $(VENV)/python -m benchmarks.repetition

bench-mirroring: setup ## 10,000 mirrored requests with a failing shadow: none is lost
	$(VENV)/python -m benchmarks.mirroring

bench-fairness: setup ## What one tenant's flood costs another on each shared consumer; about twenty minutes
	OMP_NUM_THREADS=1 $(VENV)/python -m benchmarks.fairness

bench-front-doors: setup ## What /v1/responses and /v1/messages cost beside /v1/chat/completions; two minutes
	OMP_NUM_THREADS=1 $(VENV)/python -m benchmarks.front_doors

bench-laptop: setup-cloud ## What a laptop cloud adds to a request, and its first burst of 32 beside the next; three minutes
	OMP_NUM_THREADS=1 $(VENV)/python -m benchmarks.laptop

bench-clients: setup ## What clients that nobody here wrote get from the gateway: a table of clients and features; ten minutes
	$(VENV)/python -m benchmarks.clients

bench-demo: setup ## The figures of the last `make demo`
	$(VENV)/python -m benchmarks.demo

lock: ## Write requirements/*.lock and layers/*/requirements.lock from the environments as they are
	$(VENV)/pip freeze --exclude torch > requirements/dev.lock
	$(VENV)/python -m infra.layer_locks
	.rlaas/venvs/emulator/bin/pip freeze > requirements/emulator.lock
	.rlaas/venvs/serving/bin/pip freeze --exclude torch --exclude vllm > requirements/serving.lock

lock-clients: setup ## Lock the newest versions of the clients of tests/clients
	for client in requirements/clients/*.in; do .rlaas/venvs/uv/bin/uv pip compile --quiet --upgrade --no-header --no-annotate \
		--python $(VENV)/python $$client -o $${client%.in}.lock || exit; done
	cd requirements/clients/node && npm install --package-lock-only --save-exact --no-audit --no-fund --loglevel=error \
		$$(sed -n 's/^    "\([^"]*\)": "[0-9].*/\1@latest/p' package.json)

clean: down ## Remove everything that set-up and the laptop cloud made
	rm -rf .venv .rlaas out node_modules cdk.out $(SDK)/node_modules $(SDK)/dist $(EXAMPLE)/node_modules $(EXAMPLE)/dist
