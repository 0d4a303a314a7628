check_profile()


rule train:
    """Train one network on one task with one seed; goes on from its checkpoint if there is one."""
    input:
        train=train_files,
        valid=valid_file,
    output:
        model=f"{MODEL}/model.pt",
        history=f"{MODEL}/history.csv",
        run=f"{MODEL}/run.json",
    log:
        f"{LOGS}/train/{{task}}/{{network}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARKS}/train/{{task}}/{{network}}/seed{{seed}}.tsv"
    conda:
        "../../envs/mg.yaml"
    threads: train_threads
    resources:
        gpu=min(1, gpus()),
        # One per GPU. Up to as many as a batch has parts (accumulate) they change the rounding of
        # parameters, and that batch norm's running statistics are over the first one's parts; with
        # more of them each part, which has its own batch-norm statistics, is smaller.
        processes=processes(),
        device="auto",
        execution="auto",
        mem_mb=train_memory,
        runtime=train_minutes,
    params:
        folder=subpath(output.model, parent=True),
        network=lambda wildcards: architecture(wildcards.network)[0],
        options=lambda wildcards: architecture(wildcards.network)[1],
        valid=lambda wildcards, input: ["--valid", input.valid] if input.valid else [],
        # Snakemake compares no parameter that follows from the input, and the files are the same.
        include_valid=lambda wildcards: training(wildcards.task, "include_valid"),
        own=lambda wildcards: own_images(wildcards.task, "train", "valid"),
        optimizer=config["training"]["optimizer"],
        schedule=config["training"]["schedule"],
        learning_rate=config["training"]["learning_rate"],
        weight_decay=config["training"]["weight_decay"],
        precision=config["training"]["precision"],
        output_prior="--output-prior" if config["training"]["output_prior"] else "",
        epochs=lambda wildcards: training(wildcards.task, "epochs"),
        iterations=lambda wildcards: training(wildcards.task, "iterations"),
        batch=lambda wildcards: training(wildcards.task, "batch"),
        accumulate=lambda wildcards: batch_parts(wildcards.task, wildcards.network),
        preparation=lambda wildcards: (
            ["--preparation", config["training"]["preparation"]]
            if family(wildcards.task) == "cifar"
            else []
        ),
        code=lambda wildcards: code_of_training(
            family(wildcards.task),
            wildcards.task,
            architecture(wildcards.network)[0],
            config["training"]["optimizer"],
            config["training"]["output_prior"],
        ),
    shell:
        "mg train --task {wildcards.task:q} --network {params.network:q} --options {params.options:q}"
        " --label {wildcards.network:q} --seed {wildcards.seed:q}"
        " --train {input.train:q} {params.valid:q}"
        " --optimizer {params.optimizer:q} --schedule {params.schedule:q}"
        " --learning-rate {params.learning_rate:q} --weight-decay {params.weight_decay:q}"
        " --precision {params.precision:q} {params.output_prior:q} --epochs {params.epochs:q} --iterations {params.iterations:q}"
        " --batch {params.batch:q} --accumulate {params.accumulate:q}"
        " {params.preparation:q} --workers {threads} --processes {resources.processes:q}"
        " --device {resources.device:q} --execution {resources.execution:q} --threads {threads} --output {params.folder:q} > {log:q} 2>&1"
