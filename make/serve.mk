.PHONY: serve gateway

serve: $(VENV)/ready  ## start the FastAPI server (HOST, PORT, WORKERS and docs/server.md's settings from the environment)
	@$(BIN)/python -m server

gateway: $(VENV)/ready  ## put HTTP in front of the Lambda handler, on port 8080, streaming as a Function URL does
	@$(BIN)/python -m tools.gateway
