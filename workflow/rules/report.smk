rule configuration:
    """Keep the configuration, with every default filled in, beside the results."""
    output:
        report(
            f"{RESULTS}/configuration.yaml",
            caption="../report/configuration.rst",
            category="7 Run",
            labels={"what": "configuration, to save"},
        ),
    log:
        f"{LOGS}/configuration.log",
    benchmark:
        f"{BENCHMARKS}/configuration.tsv"
    localrule: True
    conda:
        "../../envs/mg.yaml"
    params:
        text=lambda wildcards: resolved_configuration(),  # its braces are no wildcards
    shell:
        "printf '%s' {params.text:q} > {output:q} 2> {log:q}"


rule results_table:
    """Measures of the networks on a group of tasks: per seed, aggregated, and for people."""
    input:
        metrics=lambda wildcards: of_models("metrics.json", tasks=GROUPS[wildcards.group]),
    output:
        table_files("{group}", "results", "1 Results", "csv", "_aggregated.csv"),
    log:
        f"{LOGS}/tables/{{group}}.log",
    benchmark:
        f"{BENCHMARKS}/tables/{{group}}.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        tasks=lambda wildcards: GROUPS[wildcards.group],
        expected=expand("{network}:{seed}", network=NETWORKS, seed=SEEDS),
        name=config["run"],
        caption=lambda wildcards: config["description"],  # its braces are no wildcards
        code=code(shown_by("report/tables/results.py", *TABLE)),
    shell:
        "mg table results --metrics {input.metrics:q} --tasks {params.tasks:q}"
        " --expected {params.expected:q} --name {params.name:q} --caption={params.caption:q}"
        " --output {params.prefix:q} > {log:q} 2>&1"


rule classification_table:
    """Errors, sizes and costs of the classifiers, ours beside published."""
    input:
        metrics=of_models("metrics.json", tasks=CLASS_TASKS),
    output:
        table_files("classification", "classification", "1 Results", "csv", "_aggregated.csv"),
    log:
        f"{LOGS}/tables/classification.log",
    benchmark:
        f"{BENCHMARKS}/tables/classification.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        tasks=CLASS_TASKS,
        digits=SAY_DIGITS,
        expected=expand("{network}:{seed}", network=NETWORKS, seed=SEEDS),
        name=config["run"],
        caption=lambda wildcards: config["description"],  # its braces are no wildcards
        code=code(shown_by("report/tables/classification.py", *BUILDERS, *TABLE)),
    shell:
        "mg table classification --metrics {input.metrics:q} --tasks {params.tasks:q} {params.digits:q}"
        " --expected {params.expected:q} --name {params.name:q} --caption={params.caption:q}"
        " --output {params.prefix:q} > {log:q} 2>&1"


rule network_table:
    """Sizes and costs of this run's networks and of the paper's, ours beside published."""
    input:
        metrics=of_models("metrics.json", tasks=PIXEL_TASKS, seeds=SEEDS[:1]),
    output:
        table_files("networks", "networks", "5 Networks", "csv"),
    log:
        f"{LOGS}/tables/networks.log",
    benchmark:
        f"{BENCHMARKS}/tables/networks.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        caption=lambda wildcards: config["description"],  # its braces are no wildcards
        code=code(shown_by("report/tables/networks.py", *BUILDERS, *TABLE)),
    shell:
        "mg table networks --metrics {input.metrics:q} --caption={params.caption:q}"
        " --output {params.prefix:q} > {log:q} 2>&1"


rule claims_table:
    """What the paper says of its networks, held against this run."""
    input:
        metrics=of_models("metrics.json", tasks=PIXEL_TASKS),
        saliency=SALIENCY,
    output:
        table_files("claims", "claims", "1 Results", "csv"),
    log:
        f"{LOGS}/tables/claims.log",
    benchmark:
        f"{BENCHMARKS}/tables/claims.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        name=config["run"],
        caption=lambda wildcards: config["description"],  # its braces are no wildcards
        code=code(shown_by("report/tables/claims.py", *TABLE)),
    shell:
        "mg table claims --metrics {input.metrics:q} --saliency {input.saliency:q}"
        " --name {params.name:q} --caption={params.caption:q} --output {params.prefix:q} > {log:q} 2>&1"


rule figure_examples:
    """Sheet of inputs and targets of every task."""
    input:
        data=expand(f"{RESULTS}/data/{{task}}/test.h5", task=PIXEL_TASKS),
    output:
        figure_files("examples", "6 Data", "examples of every task"),
    log:
        f"{LOGS}/figures/examples.log",
    benchmark:
        f"{BENCHMARKS}/figures/examples.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        own=[own_images(task, "test") for task in PIXEL_TASKS],
        code=code(shown_by("report/figures/sheets.py")),
    shell:
        "mg figure examples --data {input.data:q} --output {params.prefix:q} > {log:q} 2>&1"


rule figure_curves:
    """Loss and progress on the validation set over training."""
    input:
        history=of_models("history.csv"),
    output:
        figure_files("learning_curves", "4 Training", "learning curves"),
    log:
        f"{LOGS}/figures/learning_curves.log",
    benchmark:
        f"{BENCHMARKS}/figures/learning_curves.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        digits=SAY_DIGITS,
        code=code(shown_by("report/figures/curves.py")),
    shell:
        "mg figure curves --history {input.history:q} {params.digits:q}"
        " --output {params.prefix:q} > {log:q} 2>&1"


rule figure_segmentation:
    """Segmentations of the first test images, errors marked, a column per network."""
    input:
        data=f"{RESULTS}/data/segmentation/test.h5",
        predictions=of_models("predictions.h5", tasks="segmentation", seeds=SEEDS[:1]),
    output:
        figure_files("segmentation", "2 Predictions", "segmentation"),
    log:
        f"{LOGS}/figures/segmentation.log",
    benchmark:
        f"{BENCHMARKS}/figures/segmentation.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        examples=config["figures"]["examples"],
        code=code(shown_by("report/figures/segmentation.py")),
    shell:
        "mg figure segmentation --data {input.data:q} --predictions {input.predictions:q}"
        " --examples {params.examples:q} --output {params.prefix:q} > {log:q} 2>&1"


rule figure_spatial:
    """Spatial transformations of the first test images, a column per network."""
    input:
        data=expand(f"{RESULTS}/data/{{task}}/test.h5", task=SPATIAL_TASKS),
        predictions=of_models("predictions.h5", tasks=SPATIAL_TASKS, seeds=SEEDS[:1]),
    output:
        figure_files("spatial", "2 Predictions", "spatial transformation"),
    log:
        f"{LOGS}/figures/spatial.log",
    benchmark:
        f"{BENCHMARKS}/figures/spatial.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        examples=config["figures"]["examples"],
        code=code(shown_by("report/figures/spatial.py")),
    shell:
        "mg figure spatial --data {input.data:q} --predictions {input.predictions:q}"
        " --examples {params.examples:q} --output {params.prefix:q} > {log:q} 2>&1"


rule figure_saliency:
    """Where the networks look, point by point."""
    input:
        saliency=lambda wildcards: saliency_of(wildcards.task, SEEDS[:1]),
    output:
        figure_files("saliency_{task}", "3 Attention", "saliency, {task}"),
    log:
        f"{LOGS}/figures/saliency_{{task}}.log",
    benchmark:
        f"{BENCHMARKS}/figures/saliency_{{task}}.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        examples=config["figures"]["examples"],
        code=code(shown_by("report/figures/saliency.py")),
    shell:
        "mg figure saliency --saliency {input.saliency:q} --examples {params.examples:q}"
        " --output {params.prefix:q} > {log:q} 2>&1"


rule figure_cost:
    """Mean IU against multiply-adds and training time."""
    input:
        metrics=of_models("metrics.json", tasks=PIXEL_TASKS),
    output:
        figure_files("cost", "1 Results", "quality against cost"),
    log:
        f"{LOGS}/figures/cost.log",
    benchmark:
        f"{BENCHMARKS}/figures/cost.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        code=code(shown_by("report/figures/cost.py")),
    shell:
        "mg figure cost --metrics {input.metrics:q} --output {params.prefix:q} > {log:q} 2>&1"


rule figure_classes:
    """Segmentation IU of each digit."""
    input:
        metrics=of_models("metrics.json", tasks="segmentation"),
    output:
        figure_files("classes", "1 Results", "segmentation IU of each digit"),
    log:
        f"{LOGS}/figures/classes.log",
    benchmark:
        f"{BENCHMARKS}/figures/classes.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        code=code(shown_by("report/figures/classes.py")),
    shell:
        "mg figure classes --metrics {input.metrics:q} --output {params.prefix:q} > {log:q} 2>&1"


rule figure_receptive_fields:
    """Growth of the receptive field with depth, the paper's central argument."""
    output:
        figure_files("receptive_fields", "5 Networks", "receptive fields"),
    log:
        f"{LOGS}/figures/receptive_fields.log",
    benchmark:
        f"{BENCHMARKS}/figures/receptive_fields.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        code=code(shown_by("report/figures/receptive_fields.py", "networks/mnist.py")),
    shell:
        "mg figure receptive-fields --output {params.prefix:q} > {log:q} 2>&1"


rule explorer:
    """A page to pick task, example and point, and to see every network's answer."""
    input:
        data=expand(f"{RESULTS}/data/{{task}}/test.h5", task=PIXEL_TASKS),
        predictions=of_models("predictions.h5", tasks=PIXEL_TASKS, seeds=SEEDS[:1]),
        saliency=saliency_of(SALIENCY_TASKS, SEEDS[:1]),
    output:
        page_file("explorer", "explorer", "2 Predictions", "explorer"),
    log:
        f"{LOGS}/explorer.log",
    benchmark:
        f"{BENCHMARKS}/explorer.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        examples=config["figures"]["explorer"],
        name=config["run"],
        code=code(
            shown_by(
                *("report/explorer.py", *PAGE),
                *("report/templates/explorer.html", "report/templates/explorer.js"),
            )
        ),
    shell:
        "mg page explorer --data {input.data:q} --predictions {input.predictions:q}"
        " --saliency {input.saliency:q} --examples {params.examples:q} --name {params.name:q}"
        " --output {output:q} > {log:q} 2>&1"


rule resources_table:
    """Time and memory per rule and training, when everything else is made."""
    input:
        results=results(),
        explorer=explorer(),
        runs=of_models("run.json"),
    output:
        table_files("resources", "resources", "7 Run", "csv"),
    log:
        f"{LOGS}/tables/resources.log",
    benchmark:
        f"{BENCHMARKS}/tables/resources.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        prefix=stem,
        benchmarks=lambda wildcards, output: str(Path(output[0]).parents[1] / "benchmarks"),
        caption=lambda wildcards: config["description"],  # its braces are no wildcards
        code=code(shown_by("report/tables/resources.py", *TABLE)),
    shell:
        "mg table resources --benchmarks {params.benchmarks:q} --runs {input.runs:q}"
        " --caption={params.caption:q} --output {params.prefix:q} > {log:q} 2>&1"


rule run_page:
    """Configuration and environment, to look at."""
    input:
        configuration=rules.configuration.output,
        runs=of_models("run.json"),
    output:
        page_file("run", "run", "7 Run", "configuration and environment"),
    log:
        f"{LOGS}/run_page.log",
    benchmark:
        f"{BENCHMARKS}/run_page.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        name=config["run"],
        code=code(shown_by("report/pages.py", "report/templates/run.html", *PAGE)),
    shell:
        "mg page run --configuration {input.configuration:q} --runs {input.runs:q}"
        " --name {params.name:q} --output {output:q} > {log:q} 2>&1"


rule overview:
    """The story of this run, the first page of its report."""
    input:
        metrics=of_models("metrics.json"),
        saliency=SALIENCY,
        figure=main_figure(),
        pages=[
            *explorer(),
            rules.resources_table.output[0],
            *rules.run_page.output,
        ],
        results=results(),
    output:
        page_file("overview", "overview", "0 Overview", "overview"),
    log:
        f"{LOGS}/overview.log",
    benchmark:
        f"{BENCHMARKS}/overview.tsv"
    conda:
        "../../envs/mg.yaml"
    params:
        tasks=TASKS,
        digits=SAY_DIGITS,
        expected=expand("{network}:{seed}", network=NETWORKS, seed=SEEDS),
        name=config["run"],
        caption=lambda wildcards: config["description"],  # its braces are no wildcards
        shown=lambda wildcards, input: [
            path for path in input.results if path.endswith((".html", ".svg"))
        ],
        code=code(shown_by("report/pages.py", "report/templates/overview.html", *PAGE)),
    shell:
        "mg page overview --metrics {input.metrics:q} --saliency {input.saliency:q}"
        " --figures {input.figure:q} --links {input.pages:q} {params.shown:q}"
        " --tasks {params.tasks:q} --expected {params.expected:q} --name {params.name:q}"
        " {params.digits:q} --caption={params.caption:q} --output {output:q} > {log:q} 2>&1"
