deploy: stage $(DONE)/node ## Deploy both regions (STAGE=prod): needs AWS credentials and FIRSTTOKEN_KEYS
	node_modules/.bin/osls deploy --stage $(or $(STAGE),prod) --region {{ cookiecutter.failover_region }}
	node_modules/.bin/osls deploy --stage $(or $(STAGE),prod) --region {{ cookiecutter.primary_region }}

# It turns serverless.yml into CloudFormation. Without Node that is not checked; all other tests run.
$(DONE)/node: package.json $(DONE)/venv
	@if command -v npm >/dev/null; then echo "make: installing package.json" && npm install --silent --no-fund --no-audit && touch $@; \
	else echo "make: Node 20 or newer is missing" >&2; fi
