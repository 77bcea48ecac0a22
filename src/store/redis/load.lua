return view('seen', 0)
