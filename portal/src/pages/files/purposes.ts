// What files are for. The results of jobs are made by the server and not uploaded.

export const UPLOADED = ["fine-tune", "evals", "user_data"] as const;
/** What programs may upload files for, too; nothing here makes use of those. */
const KEPT = ["batch", "assistants", "vision"] as const;
export const PURPOSES = [...UPLOADED, "fine-tune-results", ...KEPT] as const;
export type UploadPurpose = (typeof UPLOADED)[number];
type Purpose = (typeof PURPOSES)[number];

export const isPurpose = (text: string): text is Purpose => PURPOSES.some((one) => one === text);
