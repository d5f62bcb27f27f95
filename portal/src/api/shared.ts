// What several pages ask: the answer is kept once, under one key.

import { queryOptions } from "@tanstack/react-query";
import { get } from "./http";
import type { Facets, List, Model } from "./types";

export const ALL_MODELS = queryOptions({
  queryKey: ["models"],
  queryFn: ({ signal }) => get<List<Model>>("/v1/stillroom/models", signal),
});

/** What all stored completions have in common; those of a filter are the Completions page's own. */
export const ALL_FACETS = queryOptions({
  queryKey: ["completions", "facets", ""],
  queryFn: ({ signal }) => get<Facets>("/v1/stillroom/completions/facets", signal),
});
