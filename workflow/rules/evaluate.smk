rule evaluate:
    """Measure a trained network on the test set and keep its predictions."""
    input:
        model=rules.train.output.model,
        run=rules.train.output.run,
        test=f"{RESULTS}/data/{{task}}/test.h5",
    output:
        metrics=f"{MODEL}/metrics.json",
        predictions=f"{MODEL}/predictions.h5",
    log:
        f"{LOGS}/evaluate/{{task}}/{{network}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate/{{task}}/{{network}}/seed{{seed}}.tsv"
    conda:
        "../../envs/mg.yaml"
    threads: decoding_threads
    resources:
        gpu=min(1, gpus()),
        device="auto",
        mem_mb=evaluate_memory,
        runtime=evaluate_minutes,
    params:
        ten_crops=lambda wildcards: (
            "--ten-crops"
            if family(wildcards.task) == "imagenet" and config["imagenet"]["ten_crops"]
            else ""
        ),
        own=lambda wildcards: own_images(wildcards.task, "test"),
        code=lambda wildcards: code(evaluated_by(family(wildcards.task))),
    shell:
        "mg evaluate --model {input.model:q} --data {input.test:q} --metrics {output.metrics:q}"
        " --predictions {output.predictions:q} {params.ten_crops:q} --workers {threads}"
        " --device {resources.device:q} --threads {threads} > {log:q} 2>&1"


rule saliency:
    """Map where a network looks: the effect of occlusions on points of its output."""
    input:
        model=rules.train.output.model,
        test=f"{RESULTS}/data/{{task}}/test.h5",
    output:
        f"{MODEL}/saliency.h5",
    log:
        f"{LOGS}/saliency/{{task}}/{{network}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/saliency/{{task}}/{{network}}/seed{{seed}}.tsv"
    conda:
        "../../envs/mg.yaml"
    threads: 1
    resources:
        gpu=min(1, gpus()),
        device="auto",
        mem_mb=saliency_memory,
        runtime=saliency_minutes,
    params:
        examples=config["saliency"]["examples"],
        window=config["saliency"]["window"],
        stride=config["saliency"]["stride"],
        own=lambda wildcards: own_images(wildcards.task, "test"),
        code=code(mapped_by()),
    shell:
        "mg saliency --model {input.model:q} --data {input.test:q} --examples {params.examples:q}"
        " --window {params.window:q} --stride {params.stride:q} --device {resources.device:q} --threads {threads}"
        " --output {output:q} > {log:q} 2>&1"
