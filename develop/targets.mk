# Targets for those who work on trainlab itself. Makefile reads this file where it is; a lab of one's own has none.
.PHONY: article bench lint lock audit

article: ## train the eight settings of the article that the news experiment follows, each with two splits
	@stack/verb run article $(ARGS)

bench: ## measure what the project claims to be fast at: make bench ARGS="news_step growth"
	@develop/bench $(ARGS)

lint: ## check the code's style, types, shell scripts and Dockerfiles
	@develop/lint

lock: ## write the lock files anew (needs uv)
	@develop/lock

audit: ## look up known faults of every locked package, in the databases of PyPI and OSV
	@develop/audit
