rule fetch_mnist:
    """Bring the four MNIST files from the first source that serves them, and verify them."""
    output:
        # The files themselves are not declared: Snakemake would delete ones supplied by hand.
        record=f"{config['mnist']['directory']}/verified.json",
    log:
        f"{LOGS}/fetch_mnist.log",
    benchmark:
        f"{BENCHMARKS}/fetch_mnist.tsv"
    localrule: True
    conda:
        "../../envs/mg.yaml"
    params:
        # Not compared, as nothing is that follows from the output: the digits are the same from
        # everywhere, and those of one's own (as-is) are compared themselves.
        sources=lambda wildcards, output: config["mnist"]["sources"],
        directory=subpath(output.record, parent=True),
        own=own_files("mnist"),
    shell:
        "mg fetch --source {params.sources:q} --output {params.directory:q}"
        " --record {output.record:q} > {log:q} 2>&1"


if config["data"]["mode"] != "own":

    rule generate:
        """Make one split of a task's cluttered images and their targets."""
        input:
            mnist=rules.fetch_mnist.output.record,
        output:
            f"{RESULTS}/data/{{task}}/{{split}}.h5",
        log:
            f"{LOGS}/generate/{{task}}/{{split}}.log",
        benchmark:
            f"{BENCHMARKS}/generate/{{task}}/{{split}}.tsv"
        wildcard_constraints:
            task="|".join(PIXELS),
        conda:
            "../../envs/mg.yaml"
        resources:
            mem_mb=lambda wildcards, attempt: PYTHON_MB * attempt,  # examples are written as they are made
        params:
            mnist=subpath(input.mnist, parent=True),
            mode=config["data"]["mode"],
            seed=config["data"]["seed"],
            canvas=config["data"]["canvas"],
            digit_size=config["data"]["digit_size"],
            threshold=config["data"]["threshold"],
            number=lambda wildcards: task_option(wildcards.task, "count", wildcards.split),
            scale=lambda wildcards: task_option(wildcards.task, "scale"),
            digits=lambda wildcards: task_option(wildcards.task, "digits"),
            own=own_files("mnist"),
            code=lambda wildcards: code_of_data(wildcards.task),
        shell:
            "mg generate --task {wildcards.task:q} --split {wildcards.split:q} --mnist {params.mnist:q}"
            " --mode {params.mode:q} --seed {params.seed:q} --canvas {params.canvas:q}"
            " --digit-size {params.digit_size:q} --threshold {params.threshold:q}"
            " {params.number:q} {params.scale:q} {params.digits:q}"
            " --workers {threads} --output {output:q} > {log:q} 2>&1"


rule fetch_cifar:
    """Bring the archive of CIFAR-10 or CIFAR-100, and verify it; or write MNIST's digits as one."""
    input:
        rules.fetch_mnist.output.record if DIGITS else [],
    output:
        record=f"{config['cifar']['directory']}/{{task}}.verified.json",
    log:
        f"{LOGS}/fetch_{{task}}.log",
    benchmark:
        f"{BENCHMARKS}/fetch_{{task}}.tsv"
    wildcard_constraints:
        task="cifar10|cifar100",
    localrule: True
    conda:
        "../../envs/mg.yaml"
    params:
        sources=cifar_sources,
        directory=subpath(output.record, parent=True),
        own=own_files("mnist") if DIGITS else None,
        code=code_of_digit_archive() if DIGITS else None,
    shell:
        "mg fetch --data {wildcards.task:q} --source {params.sources:q} --output {params.directory:q}"
        " --record {output.record:q} > {log:q} 2>&1"


rule prepare:
    """Make one split of CIFAR from its archive, or list the images of one split of ImageNet."""
    input:
        image_source,
    output:
        f"{RESULTS}/data/{{task}}/{{split}}.h5",
    log:
        f"{LOGS}/prepare/{{task}}/{{split}}.log",
    benchmark:
        f"{BENCHMARKS}/prepare/{{task}}/{{split}}.tsv"
    wildcard_constraints:
        task="|".join(CLASSIFICATION),
    conda:
        "../../envs/mg.yaml"
    resources:
        mem_mb=2000,
    params:
        source=lambda wildcards, input: (
            str(Path(input[0]).parent) if input else placed(config["imagenet"]["directory"])
        ),
        own=lambda wildcards: own_files(family(wildcards.task)),
        # What follows from the input, as the source, is not compared.
        directory=lambda wildcards: of_photographs(wildcards.task, "directory"),
        number=lambda wildcards: task_option(wildcards.task, "count", wildcards.split),
        crop=lambda wildcards: of_photographs(wildcards.task, "crop"),
        code=lambda wildcards: code_of_images(family(wildcards.task)),
    shell:
        "mg prepare --task {wildcards.task:q} --split {wildcards.split:q} --source {params.source:q}"
        " {params.number:q} {params.crop:q} --output {output:q} > {log:q} 2>&1"
