.PHONY: test-clients

test-clients: $(VENV)/ready $(VENV)/clients/ready $(VENV)/clients-openai-2/ready $(VENV)/clients/npm  ## client libraries against the server and the handler; CLIENTS_REPORT names a file for what works
	CLIENTS_REPORT=$(CLIENTS_REPORT) $(BIN)/python -m pytest -m clients tests/test_clients.py

$(VENV)/clients/npm: tests/clients/package.json $(VENV)/clients/ready
	@cp $< $(@D)
	@if command -v npm >/dev/null; then npm install --prefix $(@D) --no-package-lock --no-audit --no-fund --loglevel=error; \
	    else echo "no npm: the clients for JavaScript are not tested"; fi
	@touch $@
