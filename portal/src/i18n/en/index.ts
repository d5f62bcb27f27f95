import common from "./common.json";
import completions from "./completions.json";
import deploy from "./deploy.json";
import deployments from "./deployments.json";
import distill from "./distill.json";
import evals from "./evals.json";
import files from "./files.json";
import jobs from "./jobs.json";
import keys from "./keys.json";
import models from "./models.json";
import overview from "./overview.json";
import playground from "./playground.json";
import signin from "./signin.json";
import usage from "./usage.json";

export default {
  common,
  completions,
  deploy,
  deployments,
  distill,
  evals,
  files,
  jobs,
  keys,
  models,
  overview,
  playground,
  signin,
  usage,
};
